using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// The high-priority queue, which all threads of a bridge share: FORGET, BATCH_FORGET and INTERRUPT go there and are never
/// answered.
/// </summary>
internal sealed class HighPriorityChannel(VirtioFsQueue queue, Func<bool> isOver)
{
    private static readonly int s_headerSize = Unsafe.SizeOf<FuseInHeader>();
    private static readonly int s_batchSize = Unsafe.SizeOf<FuseBatchForgetIn>();
    private static readonly int s_entrySize = Unsafe.SizeOf<FuseForgetOne>();

    // As many entries as fit 4 KiB with the structures before them.
    private static readonly int s_entriesPerMessage = (4096 - s_headerSize - s_batchSize) / s_entrySize;

    private readonly Lock _gate = new();

    /// <summary>Sends a message; waits only while the device has as many as the queue holds.</summary>
    /// <param name="message">The message as the kernel wrote it.</param>
    public void Send(ReadOnlySpan<byte> message)
    {
        FuseInHeader header = MemoryMarshal.Read<FuseInHeader>(message);
        if (header.Opcode != FuseOpcode.BatchForget)
        {
            Submit(message);
            return;
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
            Submit(part[..length]);
            entries = entries[(count * s_entrySize)..];
        }
    }

    private void Submit(ReadOnlySpan<byte> message)
    {
        var wait = new SpinWait();
        while (!TrySubmit(message))
        {
            if (isOver())
            {
                return;
            }

            wait.SpinOnce();
        }
    }

    private bool TrySubmit(ReadOnlySpan<byte> message)
    {
        // With the kick inside: an eventfd is signalled in less time than a second lock would take.
        lock (_gate)
        {
            while (queue.TryTake(out int slot, out _))
            {
                queue.Release(slot);
            }

            if (!queue.TrySubmit(message, replyCapacity: 0, out _))
            {
                return false;
            }

            queue.Kick();
            return true;
        }
    }
}
