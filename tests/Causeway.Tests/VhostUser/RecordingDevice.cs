using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>The other half of the device contract: remembers what the back end asked, and holds it to the promised order.</summary>
internal sealed class RecordingDevice : IVhostUserDevice
{
    private readonly List<string> _calls = [];
    private readonly HashSet<int> _running = [];

    public VirtioFeatures DeviceFeatures { get; init; } =
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;

    public int QueueCount { get; init; } = 2;

    public int MaxQueueSize { get; init; } = 1024;

    public byte[] Config { get; init; } = [];

    public int ConfigSize => Config.Length;

    public IReadOnlyList<ulong> SharedMemorySizes { get; init; } = [];

    /// <summary>The channel of UpdateSharedMemory.</summary>
    public BackendChannel? SharedMemory { get; private set; }

    /// <summary>What IsSharedMemory answers.</summary>
    public bool IsOwnMapping { get; set; }

    /// <summary>What each ring was started with last.</summary>
    public RingSetup[] Setups { get; } = new RingSetup[256];

    /// <summary>What StopRing answers, per ring.</summary>
    public ushort[] StopsAt { get; } = new ushort[256];

    public VirtioFeatures Features { get; private set; }

    public GuestMemory? Memory { get; private set; }

    public bool MustDrain { get; private set; }

    /// <summary>The running rings of the last update.</summary>
    public RingLocation[] UpdatedRings { get; private set; } = [];

    /// <summary>Runs inside StopRing, before it returns.</summary>
    public Action<int> Stopping { get; set; } = _ => { };

    public string Calls
    {
        get
        {
            lock (_calls)
            {
                return string.Join(' ', _calls);
            }
        }
    }

    public string Running
    {
        get
        {
            lock (_calls)
            {
                return string.Join(' ', _running.Order());
            }
        }
    }

    public void Forget()
    {
        lock (_calls)
        {
            _calls.Clear();
        }
    }

    public void ReadConfig(int offset, Span<byte> destination) => Config.AsSpan(offset, destination.Length).CopyTo(destination);

    public void UpdateSharedMemory(BackendChannel? channel) => SharedMemory = channel;

    public bool IsSharedMemory(SafeFileHandle file, ulong offset) => IsOwnMapping;

    public void OnFeaturesNegotiated(VirtioFeatures features)
    {
        Features = features;
        Record("features");
    }

    public unsafe void StartRing(in RingSetup setup)
    {
        int index = setup.Location.Index;
        Assert.True(_running.Add(index), "a running ring was started");
        Assert.False(setup.KickEvent.IsClosed || setup.CallEvent.IsClosed || setup.ErrorEvent.IsClosed);
        Assert.Same(Memory, setup.Memory);
        Touch(setup.Location);
        Setups[index] = setup;
        Record($"start{index}");
    }

    public uint StopRing(int index)
    {
        Stopping(index);
        Assert.True(_running.Remove(index), "a ring was stopped that does not run");
        Assert.False(Setups[index].KickEvent.IsClosed || Setups[index].CallEvent.IsClosed);
        Record($"stop{index}");
        return StopsAt[index];
    }

    public void UpdateMemory(in MemoryUpdate update)
    {
        Memory = update.Memory;
        MustDrain = update.MustDrain;
        UpdatedRings = update.RunningRings.ToArray();
        Assert.Equal(_running.Order(), UpdatedRings.Select(ring => ring.Index));
        foreach (RingLocation ring in UpdatedRings)
        {
            Touch(ring);
        }

        Record("memory");
    }

    public void Reset()
    {
        Assert.Empty(_running);
        Record("reset");
    }

    public void Disconnected()
    {
        Assert.Empty(_running);
        Assert.Empty(Memory!.Regions);
        Record("disconnected");
    }

    private static unsafe void Touch(RingLocation location)
    {
        // Faults when the place is not mapped.
        _ = Volatile.Read(ref *location.Queue.DescriptorArea);
        _ = Volatile.Read(ref *location.Queue.DriverArea);
        _ = Volatile.Read(ref *location.Queue.DeviceArea);
    }

    private void Record(string call)
    {
        lock (_calls)
        {
            _calls.Add(call);
        }
    }
}
