using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>A live back end on a thread of its own, and the other end of its socket.</summary>
internal sealed class BackendRig : IDisposable
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(30);

    private readonly Thread _thread;
    private Exception? _failure;

    public BackendRig()
        : this(new RecordingDevice())
    {
    }

    public BackendRig(RecordingDevice device)
    {
        (SafeFileHandle ours, SafeFileHandle theirs) = SocketPair();
        Device = device;
        Backend = new VhostUserBackend(theirs, device, NullLogger.Instance);
        Socket = ours;
        Frontend = new VhostUserFrontend(ours);
        _thread = new Thread(Run) { IsBackground = true, Name = "back end under test" };
        _thread.Start();
    }

    public RecordingDevice Device { get; }

    public VhostUserBackend Backend { get; }

    public SafeFileHandle Socket { get; }

    public VhostUserFrontend Frontend { get; }

    public static (SafeFileHandle First, SafeFileHandle Second) SocketPair()
    {
        Sockets.Socketpair(SocketType.Stream, out int first, out int second).ThrowIfError("socketpair");
        return (new SafeFileHandle(first, ownsHandle: true), new SafeFileHandle(second, ownsHandle: true));
    }

    /// <summary>Waits for the end of the connection.</summary>
    /// <returns>What <see cref="VhostUserBackend.Run"/> threw, or null.</returns>
    public Exception? Ended()
    {
        Assert.True(_thread.Join(s_deadline), "the back end does not end");
        return _failure;
    }

    /// <summary>Waits for the end of the connection, which must be due to a violation.</summary>
    /// <returns>The message.</returns>
    public string Violation() => Assert.IsType<VhostUserException>(Ended()).Message;

    /// <summary>Negotiates as usual and shares the memory.</summary>
    public BackendRig Connected(TestMemory memory, FrontendOptions? options = null)
    {
        Frontend.Negotiate(options ?? new FrontendOptions());
        Frontend.ShareMemory(memory.Region);
        return this;
    }

    public void Dispose()
    {
        Frontend.Dispose();
        Exception? failure = Ended();
        Assert.True(failure is null or VhostUserException, failure?.ToString());
        Backend.Dispose();
    }

    private void Run()
    {
        try
        {
            Backend.Run();
        }
        catch (Exception exception)
        {
            _failure = exception;
        }
    }
}

/// <summary>A megabyte of memory, shared with a back end, with room for rings.</summary>
internal sealed class TestMemory : IDisposable
{
    public const ulong Size = 1 << 20;
    public const int QueueSize = 256;

    public static readonly GuestAddress GuestBase = new(0x4000_0000);
    public static readonly FrontendAddress FrontendBase = new(0x7f12_0000_0000);

    private readonly MemoryMapping _mapping;

    public TestMemory()
    {
        File = Memory.CreateMemoryFile("causeway-test\0"u8, (long)Size, FileSeals.Shrink);
        _mapping = MemoryMapping.MapShared(File, 0, Size, MemoryProtection.Read | MemoryProtection.Write);
    }

    public SafeFileHandle File { get; }

    public static GuestMemoryRange Range => new(GuestBase, FrontendBase, Size, 0);

    public FrontendRegion Region => new(Range, File);

    public unsafe Span<byte> Bytes => new(_mapping.Address, (int)Size);

    /// <summary>Where ring n is: 64 KiB for each.</summary>
    public static QueueAddresses Addresses(int ring) => new(
        new FrontendAddress(FrontendBase.Value + ((ulong)ring << 16)),
        new FrontendAddress(FrontendBase.Value + ((ulong)ring << 16) + 0x8000),
        new FrontendAddress(FrontendBase.Value + ((ulong)ring << 16) + 0xa000));

    public static VringAddresses WireAddresses(int ring) => new(
        (uint)ring,
        VringAddressFlags.None,
        Addresses(ring).DescriptorArea,
        Addresses(ring).DeviceArea,
        Addresses(ring).DriverArea,
        default);

    public void Dispose()
    {
        _mapping.Dispose();
        File.Dispose();
    }
}

/// <summary>The events of a ring.</summary>
internal sealed class TestRing(int index) : IDisposable
{
    public SafeFileHandle Kick { get; } = Events.CreateEvent();

    public SafeFileHandle Call { get; } = Events.CreateEvent();

    public SafeFileHandle Error { get; } = Events.CreateEvent();

    public FrontendRing Description => new()
    {
        Index = index,
        Size = TestMemory.QueueSize,
        Addresses = TestMemory.Addresses(index),
        KickEvent = Kick,
        CallEvent = Call,
        ErrorEvent = Error,
    };

    public static ulong Read(SafeFileHandle handle)
    {
        Events.Drain((int)handle.DangerousGetHandle(), out ulong value);
        return value;
    }

    public void Dispose()
    {
        Kick.Dispose();
        Call.Dispose();
        Error.Dispose();
    }
}
