using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Linux;

[SupportedOSPlatform("linux")]
public sealed class EventsTests
{
    [Fact]
    public void An_event_counts_and_is_empty_after_it_was_drained()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        int descriptor = (int)handle.DangerousGetHandle();
        Assert.Equal(Errno.EAGAIN, Events.Drain(descriptor, out _).Error);
        Assert.False(Events.Signal(descriptor).IsError);
        Assert.False(Events.Signal(descriptor).IsError);
        Assert.False(Events.Drain(descriptor, out ulong value).IsError);
        Assert.Equal(2u, value);
        Assert.Equal(Errno.EAGAIN, Events.Drain(descriptor, out _).Error);
    }

    [Fact]
    public void Signalling_a_full_counter_succeeds()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        int descriptor = (int)handle.DangerousGetHandle();
        Assert.Equal(8, RandomAccessWrite(descriptor, ulong.MaxValue - 1));
        Assert.False(Events.Signal(descriptor).IsError);
    }

    [Fact]
    public void Signalling_what_is_not_open_is_an_error() => Assert.Equal(Errno.EBADF, Events.Signal(-1).Error);

    [Fact]
    public void Waiting_reports_the_number_that_was_registered_and_ends_with_the_time()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        using SafeFileHandle epoll = Events.CreateEpoll();
        int descriptor = (int)handle.DangerousGetHandle();
        int waiter = (int)epoll.DangerousGetHandle();
        Span<EpollEvent> events = stackalloc EpollEvent[4];
        var interest = new EpollEvent { Events = EpollEvents.In | EpollEvents.EdgeTriggered, Data = 0x1234_5678_9abc_def0 };
        Assert.False(Events.EpollCtl(waiter, EpollOperation.Add, descriptor, interest).IsError);
        Assert.Equal(Errno.EEXIST, Events.EpollCtl(waiter, EpollOperation.Add, descriptor, interest).Error);

        Assert.Equal(0, Events.EpollWait(waiter, events, 0).Count);
        Assert.Equal(0, Events.EpollWait(waiter, events, 1).Count);

        // Edge-triggered and never read: each signal is one more event.
        for (int i = 0; i < 3; i++)
        {
            Events.Signal(descriptor);
            Assert.Equal(1, Events.EpollWait(waiter, events, -1).Count);
            Assert.Equal(0x1234_5678_9abc_def0u, events[0].Data);
            Assert.Equal(EpollEvents.In, events[0].Events);
            Assert.Equal(0, Events.EpollWait(waiter, events, 0).Count);
        }
    }

    [Fact]
    public void A_signal_does_not_end_waiting()
    {
        Assert.SkipUnless(
            RuntimeInformation.ProcessArchitecture == Architecture.X64, "knows system call numbers of x86-64 only");
        using SafeFileHandle handle = Events.CreateEvent();
        using SafeFileHandle epoll = Events.CreateEpoll();
        using PosixSignalRegistration registration = PosixSignalRegistration.Create(
            PosixSignal.SIGWINCH, context => context.Cancel = true);
        int descriptor = (int)handle.DangerousGetHandle();
        int waiter = (int)epoll.DangerousGetHandle();
        Events.EpollCtl(waiter, EpollOperation.Add, descriptor, new EpollEvent { Events = EpollEvents.In });

        int threadId = 0;
        var result = SyscallResult.Failed(Errno.EIO);
        var thread = new Thread(() =>
        {
            Volatile.Write(ref threadId, (int)Libc.syscall(186, 0, 0, 0, 0, 0, 0));
            result = Events.EpollWait(waiter, new EpollEvent[1], 600_000);
        });
        thread.Start();

        for (int i = 0; i < 10; i++)
        {
            AwaitSleepIn(ref threadId, systemCall: 232);
            Assert.Equal(0, Libc.syscall(234, Environment.ProcessId, threadId, 28, 0, 0, 0));
        }

        AwaitSleepIn(ref threadId, systemCall: 232);
        Events.Signal(descriptor);
        thread.Join();
        Assert.Equal(Errno.Success, result.Error);
        Assert.Equal(1, result.Count);
    }

    /// <summary>Waits until a thread sleeps in a system call, as /proc tells.</summary>
    private static void AwaitSleepIn(ref int threadId, int systemCall)
    {
        string wanted = systemCall.ToString(CultureInfo.InvariantCulture) + " ";
        long deadline = Environment.TickCount64 + 60_000;
        while (Environment.TickCount64 < deadline)
        {
            int id = Volatile.Read(ref threadId);
            if (id != 0 && File.ReadAllText($"/proc/self/task/{id}/syscall").StartsWith(wanted, StringComparison.Ordinal))
            {
                return;
            }

            Thread.Yield();
        }

        Assert.Fail("the thread does not wait");
    }

    private static unsafe int RandomAccessWrite(int descriptor, ulong value) =>
        (int)Libc.eventfd_write(descriptor, &value, sizeof(ulong));
}
