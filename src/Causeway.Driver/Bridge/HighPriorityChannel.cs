using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// The high-priority queue, which all threads of a bridge share: FORGET, BATCH_FORGET and INTERRUPT go there and are never
/// answered.
/// </summary>
/// <remarks>
/// FORGET is in no hurry: the device is woken up for several at once. Who sends one sees to it that <see cref="Flush"/> is
/// called soon (<see cref="PatienceMilliseconds"/>).
/// </remarks>
internal sealed class HighPriorityChannel(VirtioFsQueue queue, Func<bool> isOver)
{
    private static readonly int s_headerSize = Unsafe.SizeOf<FuseInHeader>();
    private static readonly int s_batchSize = Unsafe.SizeOf<FuseBatchForgetIn>();
    private static readonly int s_entrySize = Unsafe.SizeOf<FuseForgetOne>();

    // As many entries as fit 4 KiB with the structures before them.
    private static readonly int s_entriesPerMessage = (4096 - s_headerSize - s_batchSize) / s_entrySize;

    /// <summary>How long a FORGET may wait for others (arbitrary): what it gives back is memory and space on disk.</summary>
    public const int PatienceMilliseconds = 10;

    // Half of what the queue holds, so that the device can work on some while others are collected.
    private const int MaxWaiting = BridgeWorker.Slots / 2;

    private readonly Lock _gate = new();
    private int _waiting;

    /// <summary>Sends a message; waits only while the device has as many as the queue holds.</summary>
    /// <param name="message">The message as the kernel wrote it.</param>
    /// <returns>Whether the device may not have been told of it: <see cref="Flush"/> is to be called.</returns>
    public bool Send(ReadOnlySpan<byte> message)
    {
        FuseInHeader header = MemoryMarshal.Read<FuseInHeader>(message);
        if (header.Opcode != FuseOpcode.BatchForget)
        {
            bool isUrgent = header.Opcode == FuseOpcode.Interrupt;
            Submit(message, isUrgent);
            return !isUrgent;
        }

        // The kernel makes them as long as the buffer that it reads into; the device's are shorter.
        ReadOnlySpan<byte> entries = message[(s_headerSize + s_batchSize)..];
        Span<byte> part = stackalloc byte[s_headerSize + s_batchSize + (s_entriesPerMessage * s_entrySize)];
        while (entries.Length >= s_entrySize)
        {
            int count = Math.Min(entries.Length / s_entrySize, s_entriesPerMessage);
            int length = s_headerSize + s_batchSize + (count * s_entrySize);
            header.Length = (uint)length;
            MemoryMarshal.Write(part, in header);
            MemoryMarshal.Write(part[s_headerSize..], new FuseBatchForgetIn { Count = (uint)count });
            entries[..(count * s_entrySize)].CopyTo(part[(s_headerSize + s_batchSize)..]);
            Submit(part[..length], isUrgent: false);
            entries = entries[(count * s_entrySize)..];
        }

        return true;
    }

    /// <summary>Tells the device of what was sent.</summary>
    public void Flush()
    {
        lock (_gate)
        {
            KickQueue();
        }
    }

    private void Submit(ReadOnlySpan<byte> message, bool isUrgent)
    {
        var wait = new SpinWait();
        while (!TrySubmit(message, isUrgent))
        {
            if (isOver())
            {
                return;
            }

            wait.SpinOnce();
        }
    }

    private bool TrySubmit(ReadOnlySpan<byte> message, bool isUrgent)
    {
        // With the kick inside: an eventfd is signalled in less time than a second lock would take.
        lock (_gate)
        {
            while (queue.TryTake(out int slot, out _))
            {
                queue.Release(slot);
            }

            bool isSubmitted = queue.TrySubmit(message, replyCapacity: 0, out _);
            _waiting += isSubmitted ? 1 : 0;
            if (isUrgent || !isSubmitted || _waiting >= MaxWaiting)
            {
                KickQueue();
            }

            return isSubmitted;
        }
    }

    private void KickQueue()
    {
        _waiting = 0;
        queue.Kick();
    }
}
