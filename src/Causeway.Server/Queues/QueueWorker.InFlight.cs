using Causeway.Linux;

namespace Causeway.Server.Queues;

/// <content>How much a queue may have in work. All but the waking belongs to the thread with the turn.</content>
internal sealed partial class QueueWorker
{
    private bool _hasFirst;
    private int _isWaitingForBytes;

    /// <summary>The session has bytes left again. Any thread may call it.</summary>
    public void WakeIfWaitingForBytes()
    {
        if (Interlocked.Exchange(ref _isWaitingForBytes, 0) != 0)
        {
            Events.Signal(Number(_control));
        }
    }

    // The one that costs nothing, as long as it is in work; the others have to fit into what the session may have.
    private bool TryAdmit(ChainSlot slot)
    {
        if (!_hasFirst)
        {
            _hasFirst = true;
            slot.IsFirst = true;
            return true;
        }

        if (_budget is null)
        {
            return true;
        }

        long cost = InFlightBudget.CostOf(slot.Chain);
        if (!_budget.TryTake(cost))
        {
            Volatile.Write(ref _isWaitingForBytes, 1);
            _budget.Announce();
            if (!_budget.TryTake(cost))
            {
                return false;
            }

            Volatile.Write(ref _isWaitingForBytes, 0);
        }

        slot.Cost = cost;
        return true;
    }

    private void GiveBack(ChainSlot slot)
    {
        if (slot.IsFirst)
        {
            slot.IsFirst = false;
            _hasFirst = false;
        }
        else if (slot.Cost != 0)
        {
            _budget!.Return(slot.Cost);
            slot.Cost = 0;
        }
    }
}
