using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Linux;

/// <summary>eventfd and epoll. Each method is the system call of that name; its contract is the man page.</summary>
public static unsafe class Events
{
    /// <summary>Longest batch of <see cref="EpollWait"/> on architectures whose epoll_event is not ours (arbitrary).</summary>
    private const int ConvertedEvents = 32;

    /// <summary>The structure is packed on x86-64 and nowhere else (sys/epoll.h, __EPOLL_PACKED).</summary>
    private static bool IsEpollEventPacked => RuntimeInformation.ProcessArchitecture == Architecture.X64;

    /// <summary>eventfd(2).</summary>
    /// <param name="initialValue">The counter's first value.</param>
    /// <param name="flags">EFD_*.</param>
    /// <returns>The new descriptor, which the caller owns.</returns>
    public static SyscallResult Eventfd(uint initialValue, EventFlags flags) =>
        SyscallResult.From(Libc.eventfd(initialValue, (int)flags));

    /// <summary>Makes an eventfd with a counter of zero, close-on-exec and non-blocking.</summary>
    /// <exception cref="ErrnoException">The call failed.</exception>
    public static SafeFileHandle CreateEvent() => new(
        Eventfd(0, EventFlags.CloseOnExec | EventFlags.NonBlocking).ThrowIfError("create an eventfd").Descriptor,
        ownsHandle: true);

    /// <summary>
    /// Adds one to an eventfd. EAGAIN, a counter that is full, counts as success: whoever waits will wake up. A
    /// <em>blocking</em> eventfd whose counter is full makes the caller wait.
    /// </summary>
    /// <param name="descriptor">The eventfd.</param>
    public static SyscallResult Signal(int descriptor)
    {
        ulong one = 1;
        while (true)
        {
            var result = SyscallResult.From(Libc.eventfd_write(descriptor, &one, sizeof(ulong)));
            switch (result.Error)
            {
                case Errno.EINTR:
                    continue;
                case Errno.EAGAIN:
                    return new SyscallResult(sizeof(ulong));
                default:
                    return result;
            }
        }
    }

    /// <summary>Reads an eventfd and sets its counter to zero; EAGAIN when it is zero and non-blocking.</summary>
    /// <param name="descriptor">The eventfd.</param>
    /// <param name="value">What the counter was.</param>
    public static SyscallResult Drain(int descriptor, out ulong value)
    {
        while (true)
        {
            ulong counter = 0;
            var result = SyscallResult.From(Libc.eventfd_read(descriptor, &counter, sizeof(ulong)));
            if (result.Error != Errno.EINTR)
            {
                value = result.IsError ? 0 : counter;
                return result;
            }
        }
    }

    /// <summary>epoll_create1(2) with EPOLL_CLOEXEC.</summary>
    /// <exception cref="ErrnoException">The call failed.</exception>
    public static SafeFileHandle CreateEpoll() =>
        new(SyscallResult.From(Libc.epoll_create1(0x80000)).ThrowIfError("create an epoll").Descriptor, ownsHandle: true);

    /// <summary>epoll_ctl(2).</summary>
    /// <param name="epoll">The epoll descriptor.</param>
    /// <param name="operation">EPOLL_CTL_*.</param>
    /// <param name="descriptor">The descriptor to watch.</param>
    /// <param name="interest">What to watch for, and the number to report.</param>
    public static SyscallResult EpollCtl(int epoll, EpollOperation operation, int descriptor, EpollEvent interest)
    {
        if (IsEpollEventPacked)
        {
            return SyscallResult.From(Libc.epoll_ctl(epoll, (int)operation, descriptor, &interest));
        }

        var natural = new NaturalEpollEvent { Events = interest.Events, Data = interest.Data };
        return SyscallResult.From(Libc.epoll_ctl(epoll, (int)operation, descriptor, &natural));
    }

    /// <summary>epoll_wait(2). A signal does not end it: it goes on waiting for what is left of the time.</summary>
    /// <param name="epoll">The epoll descriptor.</param>
    /// <param name="events">Where the events go; not empty.</param>
    /// <param name="timeoutMilliseconds">How long to wait at most: zero not at all, -1 without end.</param>
    /// <returns>How many events there are; zero after the time is over.</returns>
    public static SyscallResult EpollWait(int epoll, Span<EpollEvent> events, int timeoutMilliseconds)
    {
        long start = timeoutMilliseconds > 0 ? Stopwatch.GetTimestamp() : 0;
        int remaining = timeoutMilliseconds;
        while (true)
        {
            SyscallResult result = EpollWaitOnce(epoll, events, remaining);
            if (result.Error != Errno.EINTR)
            {
                return result;
            }

            if (timeoutMilliseconds > 0)
            {
                // Rounded up by the cast of what has elapsed: never shorter than asked for.
                long elapsed = (long)Stopwatch.GetElapsedTime(start).TotalMilliseconds;
                remaining = (int)Math.Max(0, timeoutMilliseconds - elapsed);
            }
        }
    }

    private static SyscallResult EpollWaitOnce(int epoll, Span<EpollEvent> events, int timeout)
    {
        if (IsEpollEventPacked)
        {
            fixed (EpollEvent* pointer = events)
            {
                return SyscallResult.From(Libc.epoll_wait(epoll, pointer, events.Length, timeout));
            }
        }

        int capacity = Math.Min(events.Length, ConvertedEvents);
        NaturalEpollEvent* natural = stackalloc NaturalEpollEvent[ConvertedEvents];
        var result = SyscallResult.From(Libc.epoll_wait(epoll, natural, capacity, timeout));
        for (int i = 0; i < result.RawValue; i++)
        {
            events[i] = new EpollEvent { Events = natural[i].Events, Data = natural[i].Data };
        }

        return result;
    }

    /// <summary><c>struct epoll_event</c> where it is not packed.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct NaturalEpollEvent
    {
        internal EpollEvents Events;
        internal ulong Data;
    }
}

/// <summary>One event, <c>struct epoll_event</c> with the layout of x86-64.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 4)]
public struct EpollEvent
{
    /// <summary>What happened, or what to watch for (<c>events</c>).</summary>
    public EpollEvents Events;

    /// <summary>The number that was given when the descriptor was added (<c>data</c>).</summary>
    public ulong Data;
}

/// <summary>EPOLL*.</summary>
[Flags]
public enum EpollEvents : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>EPOLLIN: readable.</summary>
    In = 0x1,

    /// <summary>EPOLLPRI.</summary>
    Priority = 0x2,

    /// <summary>EPOLLOUT: writable.</summary>
    Out = 0x4,

    /// <summary>EPOLLERR.</summary>
    Error = 0x8,

    /// <summary>EPOLLHUP: the peer is gone.</summary>
    HangUp = 0x10,

    /// <summary>EPOLLRDHUP: the peer writes no more.</summary>
    ReadHangUp = 0x2000,

    /// <summary>EPOLLEXCLUSIVE: wakes one of several waiters.</summary>
    Exclusive = 0x10000000,

    /// <summary>EPOLLONESHOT.</summary>
    OneShot = 0x40000000,

    /// <summary>EPOLLET: reports changes only.</summary>
    EdgeTriggered = 0x80000000,
}

/// <summary>EPOLL_CTL_*.</summary>
public enum EpollOperation
{
    /// <summary>EPOLL_CTL_ADD.</summary>
    Add = 1,

    /// <summary>EPOLL_CTL_DEL.</summary>
    Delete = 2,

    /// <summary>EPOLL_CTL_MOD.</summary>
    Modify = 3,
}

/// <summary>EFD_*.</summary>
[Flags]
public enum EventFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>EFD_SEMAPHORE.</summary>
    Semaphore = 0x1,

    /// <summary>EFD_NONBLOCK.</summary>
    NonBlocking = 0x800,

    /// <summary>EFD_CLOEXEC.</summary>
    CloseOnExec = 0x80000,
}
