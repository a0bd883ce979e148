using Causeway.Linux;

namespace Causeway.Passthrough;

// For those who wait without asking. The kernel asks once: whoever waits for one delegation and finds another, which was taken before he
// could go on, waits for that without asking (Linux 7.3, __break_lease). So one that was asked for is not only left alone for a while: when
// it is held again, it is given up of our own accord, some more times.
internal sealed unsafe partial class DelegationTable
{
    // So often, each time for twice as long, and held in between.
    private const int Renewals = 5;
    private const int ShortestRenewal = 50;
    private const int RenewalPeriod = 1000;

    // Whoever has waited is through by then if nobody has taken it again.
    private const int RenewalSpan = 10_000;

    // Objects that were asked for are remembered by a hash of their inode numbers, because they may lose their words and get others
    // meanwhile. One too many is given up more often than it need be (arbitrary).
    private const int AskedPlaces = 4096;

    private readonly int[] _askedFor = new int[AskedPlaces];
    private int _lastRenewal;
    private int _renewalEnd;
    private volatile bool _isRenewing;

    private static int AskedPlaceOf(ulong inode) => (int)(NodeKey.HashOf(0, inode) % AskedPlaces);

    // Whether somebody asked for an object in the last milliseconds. With the lock held, like the next two.
    private bool WasAskedFor(ulong inode, int milliseconds, out int when)
    {
        when = _askedFor[AskedPlaceOf(inode)];
        return when != 0 && unchecked(Now() - when) < milliseconds;
    }

    private void RememberAsked(DelegatedObject* delegated)
    {
        // Zero is never.
        int now = Now() | 1;
        _askedFor[AskedPlaceOf(delegated->Inode)] = now;
        (delegated->Renewals, delegated->RenewedFor) = (Renewals, now);
    }

    // It is held again: by the same words as when it was asked for, or by others.
    private void PlanRenewals(DelegatedObject* delegated)
    {
        if (!WasAskedFor(delegated->Inode, RenewalSpan, out int when))
        {
            delegated->Renewals = 0;
        }
        else if (delegated->RenewedFor != when)
        {
            (delegated->Renewals, delegated->RenewedFor) = (Renewals, when);
            _isRenewing = true;
        }
    }

    // The rest is done by the thread that hears of those who ask: somebody has.
    private void ExpectRenewals()
    {
        _isRenewing = true;
        _renewalEnd = unchecked(Now() + RenewalSpan);
    }

    // However much others ask meanwhile.
    private void RenewIfDue()
    {
        if (_isRenewing && unchecked(Now() - _lastRenewal) >= RenewalPeriod)
        {
            _lastRenewal = Now();
            Renew();
        }
    }

    private void Renew()
    {
        _isRenewing = unchecked(_renewalEnd - Now()) > 0;
        int highest;
        lock (_gate)
        {
            highest = _highest;
        }

        for (int place = 1; place <= highest; place++)
        {
            DelegatedObject* delegated = &_objects[place];
            int held;
            lock (_gate)
            {
                if (delegated->Renewals == 0 || (delegated->State & DelegatedState.Held) == 0)
                {
                    continue;
                }

                _isRenewing = true;
                if (unchecked(Now() - delegated->Since) < RenewalPeriod / 2)
                {
                    continue;
                }

                held = delegated->Descriptor;
                int failures = delegated->Failures;
                Uncover(delegated);
                delegated->Failures = Math.Max(failures, 1);
                delegated->RetryAt = unchecked(Now() + (ShortestRenewal << (Renewals - delegated->Renewals)));
                delegated->Renewals--;
            }

            _ = FileIO.Close(held);
        }
    }
}
