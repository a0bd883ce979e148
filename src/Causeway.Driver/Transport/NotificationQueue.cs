using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Virtio;

namespace Causeway.Driver;

/// <summary>
/// The notification queue (virtio 1.4, 5.11.2): buffers that the device fills on its own account. A notification is a FUSE
/// reply with unique 0 and a positive code in place of the error.
/// </summary>
internal sealed unsafe class NotificationQueue : IDisposable
{
    /// <summary>Guest memory for the buffers, in bytes.</summary>
    internal const ulong BufferFootprint = Buffers * (ulong)BufferBytes;

    // Room for the longest name and for what Linux knows of structures, with much to spare (arbitrary).
    private const int BufferBytes = 4096;

    // A device that has no buffer has to wait, or drop (arbitrary).
    private const int Buffers = 64;

    private readonly DriverQueue _ring;
    private readonly byte* _buffers;
    private readonly GuestAddress _buffersAddress;
    private readonly int[] _bufferOfHead;
    private readonly byte[] _copy = new byte[BufferBytes];
    private readonly FuseNotificationHandler _handler;
    private bool _isStopping;

    /// <summary>Makes the queue's buffers.</summary>
    /// <param name="ring">The queue; owned from here on.</param>
    /// <param name="arena">Where the buffers are.</param>
    /// <param name="handler">Takes the notifications.</param>
    internal NotificationQueue(DriverRing ring, GuestArena arena, FuseNotificationHandler handler)
    {
        Ring = ring;
        _ring = ring.Queue;
        _handler = handler;
        _buffers = arena.Cut(BufferFootprint, out _buffersAddress);
        _bufferOfHead = new int[ring.Queue.Size];
    }

    /// <summary>The queue with its events.</summary>
    internal DriverRing Ring { get; }

    /// <summary>Messages that were no notification: too short, or with a wrong header.</summary>
    internal long Malformed { get; private set; }

    /// <inheritdoc/>
    public void Dispose() => Ring.Dispose();

    /// <summary>Gives the device all buffers, before the queue starts.</summary>
    internal void Post()
    {
        for (int buffer = 0; buffer < Math.Min(Buffers, _ring.Size); buffer++)
        {
            Add(buffer);
        }
    }

    /// <summary>The life of the thread that handles notifications.</summary>
    /// <returns>Whether it ends because it was told to; false when the device broke the queue.</returns>
    internal bool Run()
    {
        while (!Volatile.Read(ref _isStopping))
        {
            TakeResult result = _ring.TryTake(out ushort head, out uint written);
            if (result == TakeResult.Broken)
            {
                return false;
            }

            if (result == TakeResult.Taken)
            {
                Handle(_bufferOfHead[head], (int)written);
            }
            else if (_ring.ArmCalls())
            {
                Ring.WaitForCall(Poll.Forever);
            }
        }

        return true;
    }

    /// <summary>Makes <see cref="Run"/> return.</summary>
    internal void Stop()
    {
        Volatile.Write(ref _isStopping, true);
        Ring.WakeUp();
    }

    private void Add(int buffer)
    {
        var address = new GuestAddress(_buffersAddress.Value + ((ulong)buffer * BufferBytes));
        bool isAdded = _ring.TryAdd([], [new GuestRange(address, BufferBytes)], out ushort head);
        System.Diagnostics.Debug.Assert(isAdded, "there are no more buffers than descriptors");
        _bufferOfHead[head] = buffer;
    }

    private void Handle(int buffer, int written)
    {
        // SAFETY: the ring has checked that not more was written than there was room for, and the copy is that large.
        new ReadOnlySpan<byte>(_buffers + (buffer * BufferBytes), written).CopyTo(_copy);

        // Back to the device before the handler runs, which may take long.
        Add(buffer);
        Ring.KickIfNeeded();

        int headerBytes = Unsafe.SizeOf<FuseOutHeader>();
        FuseOutHeader header = written >= headerBytes ? MemoryMarshal.Read<FuseOutHeader>(_copy) : default;
        if (header.Length != written || header.Unique.Value != 0 || header.Error <= 0)
        {
            Malformed++;
            return;
        }

        _handler((FuseNotifyCode)header.Error, _copy.AsSpan(headerBytes, written - headerBytes));
    }
}
