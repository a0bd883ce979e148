using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>
/// The socket for requests of the back end to the front end (SET_BACKEND_REQ_FD), and the matching of answers to them. The
/// front end may exchange it at any time; the old one is closed then.
/// </summary>
/// <remarks>
/// <para>Any thread may ask, except the one of the control socket: the front end may itself be waiting there for an answer
/// (vhost-user document, "Backend communication"), and does not look at this channel meanwhile. For the same reason that
/// thread calls <see cref="Interrupt"/> before it waits for others: whoever waits here then gives up at once.</para>
/// <para>A front end may be unable to take a request that it finds only after it has stopped the device: QEMU 11.1 crashes
/// (vhost-user.md 18.6), and what is in a socket cannot be taken back. So with <see cref="WaitsForReader"/> a request's first byte
/// goes alone. Once the front end has read it, it waits for the rest, and stops nothing before it has carried the request out; until
/// then the rest can still make it a request that no front end knows, which each answers or ignores.</para>
/// <code>
///   9           | 0 0 0   flags  size  payload        SHMEM_MAP, if the first byte was read, and nobody interrupts since
///   first byte  | 1 1 1   flags  size  zeros          nothing, otherwise
/// </code>
/// <para>One request at a time. A request that was given up stays owed: its answer is read, and not looked at, before the
/// next one is sent, so that answers never get out of step. A front end that does not answer in time, or answers something
/// else, has lost the channel for good.</para>
/// <code>
///            Interrupt                     Resume
///   open ------------------> interrupted ------------------> open       answers owed are read first
///     |  no answer in time, nonsense, end of the stream, Dispose
///     +----------------------------------------------------> closed     everything answers Gone
/// </code>
/// </remarks>
public sealed class BackendChannel : IDisposable
{
    /// <summary>
    /// QEMU answers in 0.1 to 6 ms, in 0.4 s with a thousand mappings (measured under emulation); a machine that swaps is
    /// slower. Shorter than a guest waits before it says that a task hangs.
    /// </summary>
    private static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(20);

    // While the front end has not read the first byte. Nothing tells that it has, and QEMU mostly has within 0.1 ms; so first the
    // processor is offered to others this many times, and then a millisecond at a time is waited.
    private const int YieldsBeforeWaiting = 100;

    // No request of any document: they have numbers below 2000.
    private const uint Withdrawn = 0xFFFF_FF00;

    private readonly MessageSocket _socket;
    private readonly SafeFileHandle _interrupt = Events.CreateEvent();
    private readonly TimeSpan _timeout;
    private readonly Lock _lock = new();
    private readonly byte[] _message = new byte[VhostUserHeader.Length + 40];
    private int _owed;
    private BackendRequest _owedRequest;
    private volatile bool _isInterrupted;
    private volatile bool _isClosed;

    /// <summary>Makes a channel of a socket.</summary>
    /// <param name="socket">The connected stream socket; owned from here on.</param>
    public BackendChannel(SafeFileHandle socket)
        : this(socket, DefaultTimeout)
    {
    }

    internal BackendChannel(SafeFileHandle socket, TimeSpan timeout)
    {
        _socket = new MessageSocket(socket);
        _timeout = timeout;
    }

    /// <summary>The socket. Whoever uses it besides this object gets the answers out of step.</summary>
    public SafeFileHandle Socket => _socket.Handle;

    /// <summary>Whether requests can still be made.</summary>
    public bool IsClosed => _isClosed;

    /// <summary>
    /// Whether requests reach only a front end that is looking, so that none is found by one that has stopped the device meanwhile.
    /// Costs a request one more round trip. To be changed while nobody asks.
    /// </summary>
    public bool WaitsForReader { get; set; }

    /// <summary>SHMEM_MAP: has the front end map a file into a shared memory region.</summary>
    /// <param name="mapping">What and where. It must not overlap a mapping that exists.</param>
    /// <param name="descriptor">The file. It stays the caller's.</param>
    public ChannelResult Map(in SharedMemoryMapping mapping, int descriptor) =>
        Ask(BackendRequest.SharedMemoryMap, mapping, descriptor);

    /// <summary>SHMEM_UNMAP: has the front end end a mapping.</summary>
    /// <param name="mapping">The region, and the very offset and length of one mapping that exists.</param>
    public ChannelResult Unmap(in SharedMemoryMapping mapping) =>
        Ask(BackendRequest.SharedMemoryUnmap, mapping, descriptor: -1);

    /// <summary>
    /// Makes whoever waits for an answer give up, and nobody begin. To be called before the front end is kept waiting on the
    /// control socket for something that a waiting thread holds.
    /// </summary>
    /// <returns>Whether requests were allowed before.</returns>
    public bool Interrupt()
    {
        bool wasAllowed = !_isInterrupted;
        _isInterrupted = true;
        Events.Signal(Number(_interrupt));
        return wasAllowed;
    }

    /// <summary>Allows requests again.</summary>
    public void Resume()
    {
        // Not without need: the lock is held by whoever waits for an answer. Once interrupted, nobody does for long.
        if (!_isInterrupted)
        {
            return;
        }

        lock (_lock)
        {
            if (!_isClosed)
            {
                Events.Drain(Number(_interrupt), out _);
                _isInterrupted = false;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _isClosed = true;
        Events.Signal(Number(_interrupt));
        lock (_lock)
        {
            _socket.Dispose();
            _interrupt.Dispose();
        }
    }

    private ChannelResult Ask(BackendRequest request, in SharedMemoryMapping mapping, int descriptor)
    {
        // The lock is held while waiting: requests of others could not be sent meanwhile anyway.
        lock (_lock)
        {
            try
            {
                return AskAlone(request, mapping, descriptor);
            }
            catch (Exception exception) when (exception is VhostUserException or ErrnoException)
            {
                return Close();
            }
        }
    }

    private ChannelResult AskAlone(BackendRequest request, in SharedMemoryMapping mapping, int descriptor)
    {
        if (_isClosed)
        {
            return ChannelResult.Gone;
        }

        while (_owed > 0)
        {
            ChannelResult late = Receive(_owedRequest, out _);
            if (late != ChannelResult.Done)
            {
                return late == ChannelResult.Unanswered ? ChannelResult.Interrupted : late;
            }

            _owed--;
        }

        if (_isInterrupted)
        {
            return ChannelResult.Interrupted;
        }

        MemoryMarshal.Write(_message, new VhostUserHeader(
            (uint)request,
            VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.NeedReply,
            (uint)Unsafe.SizeOf<SharedMemoryMapping>()));
        MemoryMarshal.Write(_message.AsSpan(VhostUserHeader.Length), mapping);
        ReadOnlySpan<byte> message = _message;
        ReadOnlySpan<int> descriptors = descriptor < 0 ? [] : [descriptor];
        if (WaitsForReader)
        {
            ChannelResult begun = Begin(descriptors);
            if (begun != ChannelResult.Done)
            {
                return begun;
            }

            message = message[1..];
            descriptors = [];
        }

        if (!_socket.Send(message, descriptors))
        {
            return Close();
        }

        ChannelResult result = Receive(request, out ulong code);
        if (result == ChannelResult.Unanswered)
        {
            _owed++;
            _owedRequest = request;
        }

        return result == ChannelResult.Done && code != 0 ? ChannelResult.Refused : result;
    }

    // Sends the first byte of the message and waits until it is read.
    private ChannelResult Begin(ReadOnlySpan<int> descriptors)
    {
        if (!_socket.Send(_message.AsSpan(0, 1), descriptors))
        {
            return Close();
        }

        long start = Stopwatch.GetTimestamp();
        for (int looks = 0; ; looks++)
        {
            // In this order: who has read before anybody interrupted had not stopped the device then, and waits for the rest.
            bool isRead = Sockets.Unread(Number(_socket.Handle)).ThrowIfError("look at a socket").Count == 0;
            if (_isInterrupted)
            {
                return Withdraw();
            }

            if (isRead)
            {
                return ChannelResult.Done;
            }

            if (_isClosed || Stopwatch.GetElapsedTime(start) > _timeout)
            {
                return Close();
            }

            if (looks < YieldsBeforeWaiting)
            {
                Thread.Yield();
            }
            else
            {
                PollDescriptor interruption = new(Number(_interrupt), PollEvents.Readable);
                Poll.Wait(new Span<PollDescriptor>(ref interruption), timeoutMilliseconds: 1).ThrowIfError("wait for the front end");
            }
        }
    }

    // Makes a request whose first byte is sent one that means nothing and is not answered.
    private ChannelResult Withdraw()
    {
        uint request = Withdrawn | _message[0];
        _message.AsSpan().Clear();
        MemoryMarshal.Write(_message, new VhostUserHeader(
            request, VhostUserHeaderFlags.Version1, (uint)Unsafe.SizeOf<SharedMemoryMapping>()));
        return _socket.Send(_message.AsSpan(1), []) ? ChannelResult.Interrupted : Close();
    }

    private ChannelResult Receive(BackendRequest request, out ulong code)
    {
        code = 0;
        Span<PollDescriptor> waits =
        [
            new PollDescriptor(Number(_socket.Handle), PollEvents.Readable),
            new PollDescriptor(Number(_interrupt), PollEvents.Readable),
        ];
        int count = Poll.Wait(waits, (int)_timeout.TotalMilliseconds).ThrowIfError("wait for the front end").Count;
        if (count == 0 || _isClosed)
        {
            return Close();
        }

        if (waits[0].Returned == PollEvents.None)
        {
            return ChannelResult.Unanswered;
        }

        using DescriptorBatch descriptors = new();
        if (!_socket.ReceiveHeader(out VhostUserHeader header, descriptors)
            || header.Request != (uint)request
            || header.Flags != (VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply)
            || header.Size != sizeof(ulong))
        {
            return Close();
        }

        _socket.ReceiveRest(MemoryMarshal.AsBytes(new Span<ulong>(ref code)));
        return ChannelResult.Done;
    }

    private ChannelResult Close()
    {
        _isClosed = true;
        _socket.Shutdown();
        return ChannelResult.Gone;
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();
}

/// <summary>What became of a request to the front end.</summary>
public enum ChannelResult
{
    /// <summary>The front end did it.</summary>
    Done,

    /// <summary>The front end did not do it, and says so.</summary>
    Refused,

    /// <summary>The device is being stopped, and the front end has not been asked.</summary>
    Interrupted,

    /// <summary>The device is being stopped. The front end was asked and may still do it.</summary>
    Unanswered,

    /// <summary>The channel is lost.</summary>
    Gone,
}
