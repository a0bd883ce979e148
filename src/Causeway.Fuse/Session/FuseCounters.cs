namespace Causeway.Fuse;

/// <summary>
/// What a queue's requests were. Plain words: written by the thread that dispatches, read by whoever asks, possibly a
/// little late.
/// </summary>
public sealed class FuseCounters
{
    private const int OpcodeSlots = (int)FuseOpcode.CopyFileRange64 + 1;
    private const int ViolationSlots = (int)FuseViolation.SizeMismatch + 1;

    private readonly long[] _requests = new long[OpcodeSlots];
    private readonly long[] _violations = new long[ViolationSlots];

    /// <summary>Requests of all kinds.</summary>
    public long TotalRequests => Sum(_requests);

    /// <summary>Requests that broke the protocol.</summary>
    public long TotalViolations => Sum(_violations);

    /// <summary>Requests with this opcode. Zero, which is no opcode, stands for all unknown ones.</summary>
    /// <param name="opcode">The opcode.</param>
    public long Requests(FuseOpcode opcode) => Volatile.Read(ref _requests[SlotOf(opcode)]);

    /// <summary>Requests that broke the protocol in this way.</summary>
    /// <param name="violation">The way.</param>
    public long Violations(FuseViolation violation) => Volatile.Read(ref _violations[(int)violation]);

    internal void CountRequest(FuseOpcode opcode) => _requests[SlotOf(opcode)]++;

    internal void CountViolation(FuseViolation violation) => _violations[(int)violation]++;

    private static uint SlotOf(FuseOpcode opcode) => opcode.IsKnown() ? (uint)opcode : 0;

    private static long Sum(long[] words)
    {
        long sum = 0;
        foreach (ref long word in words.AsSpan())
        {
            sum += Volatile.Read(ref word);
        }

        return sum;
    }
}
