using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

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

    private readonly SplitDriverQueue _ring;
    private readonly byte* _buffers;
    private readonly GuestAddress _buffersAddress;
    private readonly int[] _bufferOfHead;
    private readonly byte[] _copy = new byte[BufferBytes];
    private readonly FuseNotificationHandler _handler;
    private readonly SafeFileHandle _kick = Events.CreateEvent();
    private readonly SafeFileHandle _call = Events.CreateEvent();
    private bool _isStopping;

    internal NotificationQueue(GuestArena arena, int index, DriverQueueOptions options, FuseNotificationHandler handler)
    {
        Index = index;
        _handler = handler;
        byte* block = arena.Cut(SplitDriverQueue.GetRequiredBytes(options), out GuestAddress address);
        _ring = new SplitDriverQueue(block, address, options);
        _buffers = arena.Cut(BufferFootprint, out _buffersAddress);
        _bufferOfHead = new int[options.Size];
    }

    /// <summary>The number of the queue at the device.</summary>
    internal int Index { get; }

    /// <summary>Messages that were no notification: too short, or with a wrong header.</summary>
    internal long Malformed { get; private set; }

    /// <inheritdoc/>
    public void Dispose()
    {
        _kick.Dispose();
        _call.Dispose();
    }

    internal FrontendRing Describe(GuestArena arena, SafeFileHandle errorEvent) => new()
    {
        Index = Index,
        Size = _ring.Size,
        Addresses = new SplitQueueAddresses(
            arena.ToFrontendAddress(_ring.DescriptorTable),
            arena.ToFrontendAddress(_ring.AvailableRing),
            arena.ToFrontendAddress(_ring.UsedRing)),
        KickEvent = _kick,
        CallEvent = _call,
        ErrorEvent = errorEvent,
    };

    /// <summary>Gives the device all buffers, before the queue starts.</summary>
    internal void Post()
    {
        for (int buffer = 0; buffer < Math.Min(Buffers, _ring.Size); buffer++)
        {
            Add(buffer);
        }

        _ring.Publish();
    }

    /// <summary>The life of the thread that handles notifications.</summary>
    /// <returns>Whether it ends because it was told to; false when the device broke the queue.</returns>
    internal bool Run()
    {
        Span<PollDescriptor> wait = [new PollDescriptor((int)_call.DangerousGetHandle(), PollEvents.Readable)];
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
                Poll.Wait(wait, Poll.Forever).ThrowIfError("wait for a notification");
                Events.Drain((int)_call.DangerousGetHandle(), out _);
            }
        }

        return true;
    }

    /// <summary>Makes <see cref="Run"/> return.</summary>
    internal void Stop()
    {
        Volatile.Write(ref _isStopping, true);
        Events.Signal((int)_call.DangerousGetHandle()).ThrowIfError("wake a thread");
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
        if (_ring.Publish())
        {
            Events.Signal((int)_kick.DangerousGetHandle()).ThrowIfError("kick a queue");
        }

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
