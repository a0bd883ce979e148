using Causeway.Linux;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

/// <summary>That neither side sleeps for ever while the other has something for it.</summary>
public sealed unsafe class NotificationTests
{
    private const int Rounds = 50_000;
    private const int Chains = 60_000;

    /// <summary>Far beyond what a loaded machine needs for one wake-up; a lost one waits this long and then fails.</summary>
    private const int DeadlineMilliseconds = 60_000;

    [Theory]
    [InlineData(QueueFeatures.None)]
    [InlineData(QueueFeatures.EventIndex)]
    [InlineData(QueueFeatures.EventIndex | QueueFeatures.IndirectDescriptors)]
    [InlineData(QueueFeatures.PackedRing)]
    [InlineData(QueueFeatures.PackedRing | QueueFeatures.EventIndex)]
    [InlineData(QueueFeatures.PackedRing | QueueFeatures.EventIndex | QueueFeatures.IndirectDescriptors)]
    public void Two_threads_that_sleep_whenever_they_may_never_miss_each_other(QueueFeatures features)
    {
        GuestMemory memory = QueueRig.Map(out SafeFileHandle file);
        var options = new DriverQueueOptions(8, features, IndirectTableEntries: 4);
        DriverQueue driver = DriverQueue.Create(memory.Regions[0].Address, new GuestAddress(QueueRig.Base), options);
        Assert.True(QueueMemory.TryResolve(
            memory,
            driver.Size,
            features,
            new(
                QueueRig.Translate(driver.DescriptorArea),
                QueueRig.Translate(driver.DriverArea),
                QueueRig.Translate(driver.DeviceArea)),
            out QueueMemory queue));
        var device = DeviceQueue.Create(queue, memory, new(features, DeviceQueue.FirstBase(features)));
        var buffers = new GuestAddress(QueueRig.Base + DriverQueue.GetRequiredBytes(options));
        using SafeFileHandle kick = Events.CreateEvent();
        using SafeFileHandle call = Events.CreateEvent();
        int handled = 0;
        Exception? failure = null;
        var deviceThread = new Thread(() =>
        {
            try
            {
                RunDevice(device, kick, call, ref handled);
            }
            catch (Exception exception)
            {
                failure = exception;
                Events.Signal((int)call.DangerousGetHandle());
            }
        });
        deviceThread.IsBackground = true;
        deviceThread.Start();
        try
        {
            RunDriver(driver, buffers, kick, call, ref failure);
        }
        finally
        {
            deviceThread.Join();
            memory.Release();
            file.Dispose();
        }

        Assert.Null(failure);
        Assert.Equal(Chains, handled);
    }

    [Fact]
    public void Arming_and_offering_in_any_order_of_loads_and_stores_lose_no_wake_up() =>
        Assert.Empty(Interleavings.FindLostWakeUps(hasDeviceFence: true, hasDriverFence: true));

    [Theory]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(false, false)]
    public void Without_either_fence_a_wake_up_is_lost(bool hasDeviceFence, bool hasDriverFence) =>
        Assert.NotEmpty(Interleavings.FindLostWakeUps(hasDeviceFence, hasDriverFence));

    /// <summary>
    /// Lets the two critical sequences run into each other as closely as two threads can, many times: the device arms and
    /// looks again while the driver offers and looks whether to kick. Without the fence of either side it fails on x86-64.
    /// </summary>
    [Fact]
    public void Of_a_device_that_arms_and_a_driver_that_offers_at_the_same_time_one_sees_the_other()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.EventIndex, 0));
        var chain = new DescriptorChain();
        GuestRange[] readable = [new(rig.Buffers, 8)];
        int lost = 0;
        bool isKicked = false;
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using var turn = new Barrier(2);
        int started = 0;
        var driverThread = new Thread(() =>
        {
            for (int round = 0; round < Rounds; round++)
            {
                turn.SignalAndWait(cancellation);
                Meet(ref started, round);
                rig.Driver.TryAdd(readable, [], out _);
                isKicked = rig.Driver.NeedsKick();
                turn.SignalAndWait(cancellation);
            }
        });
        driverThread.IsBackground = true;
        driverThread.Start();
        for (int round = 0; round < Rounds; round++)
        {
            turn.SignalAndWait(cancellation);
            Meet(ref started, round);
            bool maySleep = rig.Device.ArmNotifications();
            turn.SignalAndWait(cancellation);
            lost += maySleep && !isKicked ? 1 : 0;
            Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
            rig.Device.Push(chain, 0);
            rig.Device.NeedsCall();
            Assert.Equal(TakeResult.Taken, rig.Driver.TryTake(out _, out _));
        }

        driverThread.Join();
        Assert.Equal(0, lost);
    }

    /// <summary>Two threads leave here at nearly the same time; gives up waiting when there is only one processor free.</summary>
    private static void Meet(ref int started, int round)
    {
        Interlocked.Increment(ref started);
        for (int spin = 0; spin < 1000 && Volatile.Read(ref started) < 2 * (round + 1); spin++)
        {
        }
    }

    private static void RunDevice(DeviceQueue device, SafeFileHandle kick, SafeFileHandle call, ref int handled)
    {
        using SafeFileHandle epoll = Watch(kick);
        DescriptorChain[] chains = [new(), new(), new()];
        var random = new Random(1);
        while (handled < Chains)
        {
            // Batches of one to three, so that indexes move by different steps.
            int batch = random.Next(1, chains.Length + 1);
            int count = 0;
            device.DisarmNotifications();
            while (count < batch && device.TryPop(chains[count]) == PopResult.Popped)
            {
                count++;
            }

            Assert.False(device.IsBroken);
            for (int i = 0; i < count; i++)
            {
                device.Push(chains[i], (uint)chains[i].Writable.Length);
            }

            handled += count;
            if (device.NeedsCall())
            {
                Events.Signal((int)call.DangerousGetHandle());
            }

            if (count == 0 && device.ArmNotifications())
            {
                Sleep(epoll, "the device");
            }
        }
    }

    private static void RunDriver(
        DriverQueue driver, GuestAddress buffers, SafeFileHandle kick, SafeFileHandle call, ref Exception? failure)
    {
        using SafeFileHandle epoll = Watch(call);
        GuestRange[] readable = [new(buffers, 8)];
        GuestRange[] writable = [new(new(buffers.Value + 64), 16)];
        var random = new Random(2);
        int added = 0;
        int taken = 0;
        while (taken < Chains && Volatile.Read(ref failure) is null)
        {
            int batch = random.Next(1, 4);
            driver.DisarmCalls();
            for (int i = 0; i < batch && added < Chains && driver.TryAdd(readable, writable, out _); i++)
            {
                added++;
            }

            if (driver.NeedsKick())
            {
                Events.Signal((int)kick.DangerousGetHandle());
            }

            int before = taken;
            while (driver.TryTake(out _, out uint written) == TakeResult.Taken)
            {
                Assert.Equal(16u, written);
                taken++;
            }

            Assert.False(driver.IsBroken);
            if (taken == before && driver.ArmCalls())
            {
                Sleep(epoll, "the driver");
            }
        }
    }

    private static SafeFileHandle Watch(SafeFileHandle descriptor)
    {
        SafeFileHandle epoll = Events.CreateEpoll();
        Events.EpollCtl(
            (int)epoll.DangerousGetHandle(),
            EpollOperation.Add,
            (int)descriptor.DangerousGetHandle(),
            new EpollEvent { Events = EpollEvents.In | EpollEvents.EdgeTriggered }).ThrowIfError("watch an eventfd");
        return epoll;
    }

    private static void Sleep(SafeFileHandle epoll, string who)
    {
        Span<EpollEvent> events = stackalloc EpollEvent[1];
        int count = Events.EpollWait((int)epoll.DangerousGetHandle(), events, DeadlineMilliseconds).Count;
        if (count == 0)
        {
            Assert.Fail($"nobody woke {who}");
        }
    }

    /// <summary>
    /// All executions of one idle device and one driver that offers one chain, on a machine whose stores wait in a buffer
    /// (x86-64; what arm64 may do besides is excluded by the acquire and release accesses). Each side is its list of
    /// loads and stores; a fence empties the buffer. A wake-up is lost when the device sleeps and the driver did not kick.
    /// </summary>
    private static class Interleavings
    {
        private const ushort Old = 41;

        public static List<string> FindLostWakeUps(bool hasDeviceFence, bool hasDriverFence)
        {
            // The driver starts before the device's last arming, with avail_event where it was then.
            var lost = new List<string>();
            Explore(new State(0, 0, Old, Old - 1, null, null, null, null), hasDeviceFence, hasDriverFence, "", lost);
            return lost;
        }

        private static void Explore(State s, bool deviceFence, bool driverFence, string trace, List<string> lost)
        {
            bool isStuck = true;
            foreach ((State next, string label) in Successors(s, deviceFence, driverFence))
            {
                isStuck = false;
                Explore(next, deviceFence, driverFence, $"{trace} {label}", lost);
            }

            if (isStuck && s.DeviceSaw == Old && !SplitRing.NeedsEvent(s.DriverSaw!.Value, Old + 1, Old))
            {
                lost.Add(trace);
            }
        }

        private static IEnumerable<(State Next, string Label)> Successors(State s, bool deviceFence, bool driverFence)
        {
            // Device: store avail_event = Old; fence; load avail.idx.
            if (s.DeviceStep == 0)
            {
                yield return (s with { DeviceStep = 1, DeviceBuffer = Old }, "D:store");
            }
            else if (s.DeviceStep == 1 && (!deviceFence || s.DeviceBuffer is null))
            {
                yield return (s with { DeviceStep = 2, DeviceSaw = s.AvailableIndex }, "D:load");
            }

            // Driver: store avail.idx = Old + 1; fence; load avail_event.
            if (s.DriverStep == 0)
            {
                yield return (s with { DriverStep = 1, DriverBuffer = Old + 1 }, "G:store");
            }
            else if (s.DriverStep == 1 && (!driverFence || s.DriverBuffer is null))
            {
                yield return (s with { DriverStep = 2, DriverSaw = s.AvailableEvent }, "G:load");
            }

            // Memory takes what waits in the buffers at any time.
            if (s.DeviceBuffer is ushort armed)
            {
                yield return (s with { AvailableEvent = armed, DeviceBuffer = null }, "D:drain");
            }

            if (s.DriverBuffer is ushort offered)
            {
                yield return (s with { AvailableIndex = offered, DriverBuffer = null }, "G:drain");
            }
        }

        private readonly record struct State(
            int DeviceStep, int DriverStep, ushort AvailableIndex, ushort AvailableEvent, ushort? DeviceBuffer,
            ushort? DriverBuffer, ushort? DeviceSaw, ushort? DriverSaw);
    }
}
