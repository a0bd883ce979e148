using Causeway.Linux;
using Causeway.Virtio;

namespace Causeway.Server.Queues;

/// <content>
/// What is done with requests that nobody waits for: they gather (<see cref="Gathering"/>), and a thread of another queue does them
/// at the end of its batch. It is awake anyway, and has the nodes that they are about in its cache.
/// </content>
/// <remarks>
/// <code>
///                    lends                      borrows
///   awake (0) ───────────────▶ asleep (id) ───────────────▶ lent (-id)
///     ▲  ▲                      │      ▲                    │   │
///     │  └──────────────────────┘      └────────────────────┘   │
///     │           wakes up                     returns          │ wakes up: it is to be given the turn afterwards
///     └─────────────────────────────────────────────────────────┘
/// </code>
/// Only the thread that borrowed may return, and only as long as the stall monitor has not taken the turn from it. Whoever gets the
/// turn then begins with "awake".
/// </remarks>
internal sealed partial class QueueWorker
{
    // Longer than FORGET and INTERRUPT. BATCH_FORGET may be about so many nodes that the other queue's requests would wait for long: it
    // is left to the thread that sleeps (arbitrary: some ten nodes).
    private const int MaxGatheredLength = 256;

    private int _gatherer;

    private void EndGathering() => Volatile.Write(ref _gatherer, 0);

    // After how many requests the driver is to kick all the same. A quarter of the ring: half may be all there is room for, where each
    // takes two descriptors, and then the driver would wait for us instead of kicking.
    private static int GatheringLimit(DeviceQueue queue) => queue.Size / 4;

    // Lets requests gather that nobody waits for. Returns false when the turn is somebody else's now.
    private bool TryGather(DeviceQueue queue)
    {
        if (!queue.ArmNotificationsAfter(GatheringLimit(queue)))
        {
            return true;
        }

        int id = Environment.CurrentManagedThreadId;
        Volatile.Write(ref _gatherer, id);
        Sleep(Gathering.Milliseconds);
        return TryWakeUp(id);
    }

    private bool TryWakeUp(int id)
    {
        while (true)
        {
            int seen = Interlocked.CompareExchange(ref _gatherer, 0, id);
            if (seen == id)
            {
                return true;
            }

            if (seen != -id)
            {
                // The monitor has given the turn to another thread, and what woke this one may have been meant for that.
                Events.Signal(Number(_control));
                return false;
            }

            if (Interlocked.CompareExchange(ref _gatherer, 0, -id) == -id)
            {
                // Who has the turn gives it on, as it finds nobody asleep.
                return false;
            }
        }
    }

    // Returns false when the turn was lost: requests of the other queue may take as long as any.
    private bool HelpNeighbour()
    {
        if (_neighbour is null || Volatile.Read(ref _neighbour._gatherer) <= 0)
        {
            return true;
        }

        long busy = EnterTurn();
        _neighbour.ServeGathered();
        return TryLeaveTurn(busy);
    }

    // By a thread of another queue.
    private void ServeGathered()
    {
        int gatherer = Volatile.Read(ref _gatherer);
        if (gatherer <= 0 || Interlocked.CompareExchange(ref _gatherer, -gatherer, gatherer) != gatherer)
        {
            return;
        }

        DeviceQueue queue = _queue!;
        if (queue.HasAvailable)
        {
            if (ServeBatch(queue, MaxGatheredLength) == BatchResult.LostTurn)
            {
                return;
            }

            CallIfNeeded(queue);
            // Else the thread that sleeps would be woken for what has been done already. Should more than that wait by now, it is the
            // next batch's, or that thread's when its time is over.
            _ = queue.ArmNotificationsAfter(GatheringLimit(queue));
        }

        if (Interlocked.CompareExchange(ref _gatherer, gatherer, -gatherer) != -gatherer)
        {
            PassTurn();
        }
    }
}
