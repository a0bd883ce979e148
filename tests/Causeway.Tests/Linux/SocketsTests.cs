using Causeway.Linux;
using Causeway.Tests.VhostUser;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Linux;

/// <summary>Descriptors over sockets, polling, and dup3.</summary>
[Collection(OpenDescriptors.Collection)]
public sealed class SocketsTests : IDisposable
{
    private readonly SafeFileHandle _first;
    private readonly SafeFileHandle _second;
    private readonly SafeFileHandle _event = Events.CreateEvent();

    public SocketsTests() => (_first, _second) = BackendRig.SocketPair();

    private int First => (int)_first.DangerousGetHandle();

    private int Second => (int)_second.DangerousGetHandle();

    private int Event => (int)_event.DangerousGetHandle();

    [Theory]
    [InlineData(0, 0, 0, false)]
    [InlineData(1, 1, 1, false)]
    [InlineData(3, 4, 3, false)]
    [InlineData(2, 1, 1, true)]
    [InlineData(4, 3, 3, true)]
    [InlineData(1, 0, 0, true)]
    [InlineData(253, 253, 253, false)]
    public void Descriptors_arrive_as_far_as_there_is_room(int sent, int room, int received, bool isTruncated)
    {
        HashSet<string> before = OpenDescriptors.All();
        int[] numbers = [.. Enumerable.Repeat(Event, sent)];
        Assert.Equal(3, Sockets.Sendmsg(First, "abc"u8, numbers).Count);
        byte[] bytes = new byte[8];
        int[] descriptors = new int[room];

        Assert.Equal(3, Sockets.Recvmsg(Second, bytes, descriptors, out ReceivedControl control).Count);

        Assert.Equal(new ReceivedControl(received, isTruncated), control);
        Assert.Equal("abc"u8, bytes.AsSpan(0, 3));
        Assert.Equal(received, OpenDescriptors.All().Since(before).Count());
        foreach (int descriptor in descriptors[..received])
        {
            Assert.False(FileIO.Close(descriptor).IsError);
        }
    }

    [Fact]
    public void Sending_to_a_closed_socket_is_an_error_and_no_signal()
    {
        _second.Dispose();

        Assert.Equal(Errno.EPIPE, Sockets.Sendmsg(First, "x"u8, []).Error);
    }

    [Fact]
    public void Shutdown_ends_the_waiting_of_another_thread()
    {
        nint received = -1;
        Thread thread = new(() => received = Sockets.Recvmsg(First, new byte[1], [], out _).RawValue);
        thread.Start();

        Sockets.Shutdown(First, SocketShutdown.Both);

        Assert.True(thread.Join(TimeSpan.FromSeconds(30)));
        Assert.Equal(0, received);
    }

    [Fact]
    public void Poll_tells_what_has_happened_and_nothing_else()
    {
        PollDescriptor[] waits = [new(First, PollEvents.Readable), new(Event, PollEvents.Readable), new(-1, PollEvents.Readable)];
        Assert.Equal(0, Poll.Wait(waits, 0).Count);

        Events.Signal(Event);
        Assert.Equal(1, Poll.Wait(waits, Poll.Forever).Count);
        Assert.Equal(PollEvents.None, waits[0].Returned);
        Assert.Equal(PollEvents.Readable, waits[1].Returned);

        _second.Dispose();
        Assert.Equal(
            PollEvents.Readable | PollEvents.PeerClosed | PollEvents.HangUp,
            Poll.Now(First, PollEvents.Readable | PollEvents.PeerClosed));
        Assert.Equal(PollEvents.Invalid, Poll.Now(1_000_000, PollEvents.Readable));
    }

    [Fact]
    public void Dup3_changes_what_is_behind_a_number()
    {
        using SafeFileHandle other = Events.CreateEvent();

        Assert.Equal((int)other.DangerousGetHandle(), Descriptors.Dup3(Event, (int)other.DangerousGetHandle()).Descriptor);
        Events.Signal((int)other.DangerousGetHandle());

        Events.Drain(Event, out ulong value);
        Assert.Equal(1UL, value);
    }

    [Fact]
    public void A_path_that_does_not_fit_is_told_the_limit()
    {
        Assert.Contains(
            "has 108 bytes, and the kernel allows 107",
            Assert.Throws<ArgumentException>(() => UnixAddress.FromPath(new string('a', 108))).Message,
            StringComparison.Ordinal);
        UnixAddress.FromPath(new string('a', 107));
        Assert.Throws<ArgumentException>(() => UnixAddress.FromPath(new string('ä', 54)));
        Assert.Throws<ArgumentException>(() => UnixAddress.FromPath("a\0b"));
    }

    public void Dispose()
    {
        _first.Dispose();
        _second.Dispose();
        _event.Dispose();
    }
}
