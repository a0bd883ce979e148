using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Extensions.Logging.Abstractions;

namespace Causeway.Tests.Fuse;

/// <summary>INTERRUPT, and what else ends the wait of a request (fuse-virtiofs.md 1.9).</summary>
public sealed class SessionWaitTests
{
    private const FuseFeatures Locks = FuseFeatures.PosixLocks | FuseFeatures.FlockLocks;

    [Fact]
    public async Task An_interrupt_ends_the_wait_of_its_target_and_of_no_other()
    {
        using var rig = new Rig();
        Call first = rig.Wait(unique: 100);
        Call second = rig.Wait(unique: 102);

        Assert.Equal(0, rig.Interrupt(target: 102));

        Assert.Equal(Errno.EINTR, await second.ErrorAsync());
        Assert.False(first.Task.IsCompleted);
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await first.ErrorAsync());
    }

    [Fact]
    public async Task An_interrupt_that_comes_before_its_target_ends_the_wait_at_once()
    {
        using var rig = new Rig();
        Assert.Equal(0, rig.Interrupt(target: 100));

        Call other = rig.Wait(unique: 102);
        Call target = rig.Wait(unique: 100);

        Assert.Equal(Errno.EINTR, await target.ErrorAsync());
        Assert.False(other.Task.IsCompleted);

        // It is used up.
        Call again = rig.Wait(unique: 100);
        Assert.False(again.Task.IsCompleted);
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await again.ErrorAsync());
        Assert.Equal(Errno.Success, await other.ErrorAsync());
    }

    [Fact]
    public async Task An_interrupt_that_comes_too_late_changes_nothing()
    {
        using var rig = new Rig();
        Call target = rig.Wait(unique: 100);
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await target.ErrorAsync());
        Assert.Equal(0, rig.Interrupt(target: 100));

        // The same slot, another request.
        Call next = rig.Wait(unique: 104, target.Request);
        Assert.Equal(0, rig.Interrupt(target: 100));
        Assert.False(next.Task.IsCompleted);
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await next.ErrorAsync());
    }

    [Fact]
    public async Task More_early_interrupts_than_can_be_remembered_are_asked_for_again()
    {
        using var rig = new Rig();
        int remembered = 0;
        while (rig.Interrupt(target: 1000 + (ulong)(2 * remembered)) == 0)
        {
            remembered++;
            Assert.InRange(remembered, 0, 1000);
        }

        Assert.Equal(64, remembered);
        Assert.Equal(-(int)Errno.EAGAIN, rig.Interrupt(target: 7));
        // No room to say so.
        Assert.Equal(0, rig.Interrupt(target: 7, room: 0));

        // One that was remembered before is not a new one, and one that is used up makes room.
        Assert.Equal(0, rig.Interrupt(target: 1000));
        Assert.Equal(Errno.EINTR, await rig.Wait(unique: 1000).ErrorAsync());
        Assert.Equal(0, rig.Interrupt(target: 7));
        Assert.Equal(Errno.EINTR, await rig.Wait(unique: 7).ErrorAsync());
    }

    [Theory]
    [InlineData(FuseOpcode.Destroy)]
    [InlineData(FuseOpcode.Init)]
    public async Task The_end_of_the_session_ends_all_waits_without_an_interrupt(FuseOpcode opcode)
    {
        using var rig = new Rig();
        Call first = rig.Wait(unique: 100);
        Call second = rig.Wait(unique: 102);
        Assert.Equal(0, rig.Interrupt(target: 104));

        rig.Send(opcode == FuseOpcode.Init ? Message.Init(SessionRig.AllFeatures) : Message.Request(opcode, 0), room: 80);

        Assert.Equal(Errno.ENOLCK, await first.ErrorAsync());
        Assert.Equal(Errno.ENOLCK, await second.ErrorAsync());

        // An interrupt of the session before is none of this one's.
        rig.Send(Message.Init(SessionRig.AllFeatures), room: 80);
        Call target = rig.Wait(unique: 104);
        Assert.False(target.Task.IsCompleted);
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await target.ErrorAsync());
    }

    [Fact]
    public async Task A_queue_that_comes_to_rest_ends_its_waits_and_those_that_come_after()
    {
        using var rig = new Rig();
        var resting = new QueueWaits();
        var other = new QueueWaits();
        Call first = rig.Wait(unique: 100, new FuseRequest(new FuseCounters(), resting));
        Call second = rig.Wait(unique: 102, new FuseRequest(new FuseCounters(), other));
        Assert.Equal((1, 1), (resting.Count, other.Count));

        rig.Session.EndWaits(resting);

        Assert.Equal(Errno.ENOLCK, await first.ErrorAsync());
        Assert.Equal(Errno.ENOLCK, await rig.Wait(unique: 104, new FuseRequest(new FuseCounters(), resting)).ErrorAsync());
        Assert.False(second.Task.IsCompleted);
        Assert.Equal((0, 1), (resting.Count, other.Count));

        rig.Session.AllowWaits(resting);
        Call third = rig.Wait(unique: 106, new FuseRequest(new FuseCounters(), resting));
        Assert.False(third.Task.IsCompleted);
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await second.ErrorAsync());
        Assert.Equal(Errno.Success, await third.ErrorAsync());
    }

    [Fact]
    public async Task A_queue_says_how_many_may_wait()
    {
        using var rig = new Rig();
        var queue = new QueueWaits { Limit = 2 };
        Call[] calls =
            [.. Enumerable.Range(0, 3).Select(i => rig.Wait((ulong)(100 + i), new FuseRequest(new FuseCounters(), queue)))];
        Assert.Equal(Errno.ENOLCK, await calls[2].ErrorAsync());
        rig.FileSystem.Grant();
        Assert.Equal(Errno.Success, await calls[0].ErrorAsync());
        Assert.Equal(Errno.Success, await calls[1].ErrorAsync());
        Assert.Equal(0, queue.Count);
    }

    [Fact]
    public void Locks_and_ioctls_that_make_no_sense_are_refused()
    {
        SessionRig rig = SessionRig.Open(Locks);
        FuseLkIn good = new() { Handle = new HandleId(5), Owner = 6, Start = 1, End = 9 };
        Assert.Equal(Errno.ENOSYS, ErrorOf(rig, FuseOpcode.SetLk, good));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.SetLk, good with { Type = (FuseLockType)3 }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.SetLk, good with { Start = 10 }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.SetLkWait, good with { End = 1UL << 63 }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.SetLk, good with { Flags = (FuseLockFlags)2 }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.GetLk, good with { Type = FuseLockType.Unlock }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.GetLk, good with { Flags = FuseLockFlags.Flock }));

        FuseIoctlIn ioctl = new() { Handle = new HandleId(5), Command = 1, OutputSize = 4 };
        Assert.Equal(Errno.ENOSYS, ErrorOf(rig, FuseOpcode.Ioctl, ioctl));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.Ioctl, ioctl with { InputSize = 4 }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.Ioctl, ioctl with { OutputSize = 1 << 14 }));
        Assert.Equal(Errno.EINVAL, ErrorOf(rig, FuseOpcode.Ioctl, ioctl with { Flags = FuseIoctlFlags.Unrestricted }));
        Assert.Equal(Errno.EIO, ErrorOf(rig, FuseOpcode.Ioctl, ioctl with { OutputSize = 100 }));
        Assert.Empty(rig.FileSystem.Calls);
    }

    [Theory]
    [InlineData(FuseFeatures.None, Errno.ENOSYS, Errno.ENOSYS)]
    [InlineData(FuseFeatures.PosixLocks, Errno.Success, Errno.ENOSYS)]
    [InlineData(FuseFeatures.FlockLocks, Errno.ENOSYS, Errno.Success)]
    public async Task Only_locks_that_were_negotiated_are_taken(FuseFeatures granted, Errno record, Errno flock)
    {
        using var rig = new Rig(granted);
        Call recordCall = rig.Wait(unique: 100);
        Call flockCall = rig.Wait(unique: 102, flags: FuseLockFlags.Flock);
        rig.FileSystem.Grant();
        Assert.Equal(record, await recordCall.ErrorAsync());
        Assert.Equal(flock, await flockCall.ErrorAsync());
    }

    private static Errno ErrorOf<T>(SessionRig rig, FuseOpcode opcode, T arguments)
        where T : unmanaged => (Errno)(-BitConverter.ToInt32(
            rig.Send(Message.Request(opcode, 1, Message.Bytes(arguments)), room: 48), 4));

    /// <summary>A session over a file system whose locks are granted when the test says so.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly List<Call> _calls = [];

        public Rig(FuseFeatures granted = Locks)
        {
            FileSystem = new(granted);
            Session = new FuseSession(FileSystem, new FuseSessionOptions(), NullLogger.Instance);
            Assert.Equal(80, Send(Message.Init(SessionRig.AllFeatures), room: 80).Length);
        }

        public LockingFileSystem FileSystem { get; }

        public FuseSession Session { get; }

        public Call Wait(ulong unique, FuseRequest? request = null, FuseLockFlags flags = FuseLockFlags.None)
        {
            byte[] message = Message.Request(
                FuseOpcode.SetLkWait, 1, Message.Bytes(new FuseLkIn { End = 9, Type = FuseLockType.Write, Flags = flags }));
            BitConverter.TryWriteBytes(message.AsSpan(8), unique);
            var call = new Call(Session, request ?? new FuseRequest(), message, room: 16);
            _calls.Add(call);
            return call;
        }

        /// <summary>The error of the reply; zero when there is none.</summary>
        public int Interrupt(ulong target, int room = 16)
        {
            byte[] reply = Send(Message.Request(
                FuseOpcode.Interrupt, 0, Message.Bytes(new FuseInterruptIn { Unique = new RequestId(target) })), room);
            return reply.Length == 0 ? 0 : BitConverter.ToInt32(reply, 4);
        }

        public byte[] Send(byte[] message, int room)
        {
            using var call = new Call(Session, new FuseRequest(), message, room);
            return call.Reply;
        }

        public void Dispose()
        {
            Session.Reset();
            FileSystem.Grant();
            _calls.ForEach(call => call.Dispose());
            FileSystem.Dispose();
        }
    }

    private sealed class Call : IDisposable
    {
        private readonly PiecedMemory _readable;
        private readonly PiecedMemory _writable;

        public Call(FuseSession session, FuseRequest request, byte[] message, int room)
        {
            Request = request;
            _readable = new PiecedMemory(message);
            _writable = new PiecedMemory(room);
            request.Reset(_readable.List, _writable.List);
            Task = session.DispatchAsync(request).AsTask();
        }

        public FuseRequest Request { get; }

        public Task<int> Task { get; }

        public byte[] Reply => Task.IsCompletedSuccessfully
            ? _writable.Read(Task.Result)
            : throw new InvalidOperationException("completes later");

        public async Task<Errno> ErrorAsync()
        {
            Assert.Equal(16, await Task.WaitAsync(TimeSpan.FromSeconds(60)));
            return (Errno)(-MemoryMarshal.Read<int>(_writable.Read(16).AsSpan(4)));
        }

        public void Dispose()
        {
            _readable.Dispose();
            _writable.Dispose();
        }
    }

    private sealed class LockingFileSystem(FuseFeatures granted) : FuseFileSystem
    {
        private TaskCompletionSource _granted = new();

        public void Grant() => Interlocked.Exchange(ref _granted, new()).SetResult();

        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation)
        {
            negotiation.Granted |= granted;
            return new(Errno.Success);
        }

        public override async ValueTask<Errno> SetLockAsync(
            NodeId node, FuseLkIn arguments, bool mayWait, RequestContext context)
        {
            Assert.True(mayWait);
            if (!context.MayWait)
            {
                return Errno.ENOLCK;
            }

            try
            {
                await Volatile.Read(ref _granted).Task.WaitAsync(context.CancellationToken);
                return Errno.Success;
            }
            catch (OperationCanceledException)
            {
                return context.IsInterrupted ? Errno.EINTR : Errno.ENOLCK;
            }
        }
    }
}
