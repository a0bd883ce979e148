using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Fuse;

/// <summary>File systems that fail, throw, return nonsense or complete later.</summary>
public sealed class SessionFailureTests
{
    private static readonly byte[] GetAttr =
        Message.Request(FuseOpcode.GetAttr, 5, Message.Bytes(default(FuseGetAttrIn)));

    private static readonly byte[] Read =
        Message.Request(FuseOpcode.Read, 5, Message.Bytes(new FuseReadIn { Size = 8 }));

    [Theory]
    [InlineData(Errno.ENOENT, Errno.ENOENT)]
    [InlineData((Errno)511, (Errno)511)]
    [InlineData((Errno)512, Errno.EIO)]
    [InlineData((Errno)(-2), Errno.EIO)]
    [InlineData((Errno)int.MinValue, Errno.EIO)]
    public void An_errno_that_a_guest_would_not_take_becomes_EIO(Errno error, Errno expected)
    {
        SessionRig rig = SessionRig.Open();
        rig.FileSystem.Error = error;

        Assert.Equal(Message.ErrorReply(expected), rig.Send(GetAttr, room: 120));
        Assert.Equal(
            Message.ErrorReply(expected), rig.Send(Message.Request(FuseOpcode.Unlink, 1, Message.Name("a")), room: 16));
    }

    [Theory]
    [InlineData(9)]
    [InlineData(-1)]
    [InlineData(int.MinValue)]
    [InlineData(int.MaxValue)]
    public void A_count_that_cannot_be_is_EIO_and_logged_once(int count)
    {
        SessionRig rig = SessionRig.Open();
        rig.FileSystem.Count = count;

        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(Read, room: 24));
        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(Read, room: 24));
        Assert.Equal(1, rig.Logger.CountOf(303));
        byte[] write = Message.Request(FuseOpcode.Write, 5, Message.Bytes(new FuseWriteIn { Size = 8 }), new byte[8]);
        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(write, room: 24));
        byte[] list = Message.Request(FuseOpcode.ListXattr, 5, Message.Bytes(new FuseGetXattrIn { Size = 8 }));
        rig.FileSystem.Xattr = new byte[8];
        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(list, room: 24));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(4096)]
    public void A_target_that_cannot_be_is_EIO(int length)
    {
        SessionRig rig = SessionRig.Open();
        rig.FileSystem.Count = length;

        Assert.Equal(
            Message.ErrorReply(Errno.EIO), rig.Send(Message.Request(FuseOpcode.ReadLink, 5), room: 16 + 4096));
    }

    [Fact]
    public void A_target_that_does_not_fit_is_not_cut()
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(Message.Request(FuseOpcode.ReadLink, 5), room: 16 + 11));
        Assert.Equal(
            Message.Reply("to/somewhere"u8.ToArray()), rig.Send(Message.Request(FuseOpcode.ReadLink, 5), room: 16 + 12));
    }

    [Theory]
    [MemberData(nameof(Exceptions))]
    public void An_exception_becomes_an_errno(string what, Func<Exception> make, Errno expected, int logged)
    {
        Assert.NotEmpty(what);
        foreach (bool later in (bool[])[false, true])
        {
            RecordingLogger logger = new();
            using ThrowingFileSystem fileSystem = new(make, later);
            FuseSession session = new(fileSystem, new FuseSessionOptions(), logger);
            FuseRequest request = new();

            Send(session, request, Message.Init(SessionRig.AllFeatures), room: 80);
            for (int i = 0; i < 2; i++)
            {
                Assert.Equal(Message.ErrorReply(expected), Send(session, request, GetAttr, room: 120));
                Assert.Equal(Message.ErrorReply(expected), Send(session, request, Read, room: 24));
            }

            // Once for each opcode, with the stack trace.
            Assert.Equal(2 * logged, logger.Entries.Count(entry => entry.Event == 302 && entry.Exception is not null));
            Assert.Empty(Send(session, request, Message.Request(FuseOpcode.Forget, 5, Message.Bytes(1UL)), room: 0));
        }
    }

    public static TheoryData<string, Func<Exception>, Errno, int> Exceptions => new()
    {
        { "cancelled", () => new OperationCanceledException(), Errno.EINTR, 0 },
        { "task cancelled", () => new TaskCanceledException(), Errno.EINTR, 0 },
        { "errno", () => new ErrnoException(Errno.ENOSPC, "write"), Errno.ENOSPC, 0 },
        { "errno without a number", () => new ErrnoException("what"), Errno.EIO, 0 },
        { "anything else", () => new InvalidOperationException("a bug"), Errno.EIO, 1 },
    };

    [Fact]
    public void An_exception_in_INIT_leaves_the_session_closed_and_ready_for_another()
    {
        using ThrowingFileSystem fileSystem = new(() => new InvalidOperationException("a bug"), later: true)
        {
            ThrowsInInit = true,
        };
        FuseSession session = new(fileSystem, new FuseSessionOptions(), new RecordingLogger());
        FuseRequest request = new();

        Assert.Equal(Message.ErrorReply(Errno.EIO), Send(session, request, Message.Init(SessionRig.AllFeatures), room: 80));
        Assert.False(session.IsOpen);

        fileSystem.ThrowsInInit = false;
        Assert.Equal(80, Send(session, request, Message.Init(SessionRig.AllFeatures), room: 80).Length);
        Assert.True(session.IsOpen);
    }

    [Fact]
    public void An_exception_when_the_guest_went_away_is_logged()
    {
        RecordingLogger logger = new();
        using ThrowingFileSystem fileSystem = new(() => new InvalidOperationException("a bug"), later: false);
        FuseSession session = new(fileSystem, new FuseSessionOptions(), logger);
        Send(session, new FuseRequest(), Message.Init(SessionRig.AllFeatures), room: 80);

        session.Reset();

        Assert.False(session.IsOpen);
        Assert.Single(logger.Entries, entry => entry.Level == LogLevel.Error);
    }

    [Fact]
    public async Task A_file_system_that_completes_later_is_answered_later()
    {
        using SlowFileSystem fileSystem = new();
        FuseSession session = new(fileSystem, new FuseSessionOptions(), new RecordingLogger());
        Send(session, new FuseRequest(), Message.Init(SessionRig.AllFeatures), room: 80);

        FuseRequest request = new();
        using PiecedMemory readable = new(Read, 7, 60);
        using PiecedMemory writable = new(24, 5, 20);
        writable.Fill(0xee);
        request.Reset(readable.List, writable.List);
        ValueTask<int> task = session.DispatchAsync(request);

        Assert.False(task.IsCompleted);
        Assert.Equal(Enumerable.Repeat((byte)0xee, 24), writable.Read(24));

        // Another request overtakes.
        Assert.Equal(
            Message.ErrorReply(Errno.ENOSYS), Send(session, new FuseRequest(), Message.Request(FuseOpcode.Statfs, 1), 96));

        Thread thread = new(() => fileSystem.Complete("12345"u8.ToArray()));
        thread.Start();
        int used = await task;
        thread.Join();

        Assert.Equal(Message.Reply("12345"u8.ToArray()), SessionRig.CheckReply(Read, readable, writable, used));
    }

    [Fact]
    public async Task A_second_INIT_while_the_first_waits_is_refused()
    {
        using SlowFileSystem fileSystem = new() { IsInitSlow = true };
        FuseSession session = new(fileSystem, new FuseSessionOptions(), new RecordingLogger());
        byte[] message = Message.Init(SessionRig.AllFeatures);
        FuseRequest request = new();
        using PiecedMemory readable = new(message);
        using PiecedMemory writable = new(80);
        request.Reset(readable.List, writable.List);

        ValueTask<int> first = session.DispatchAsync(request);
        Assert.Equal(Message.ErrorReply(Errno.EIO), Send(session, new FuseRequest(), message, room: 80));
        Assert.False(session.IsOpen);
        fileSystem.CompleteInit();

        Assert.Equal(80, await first);
        Assert.True(session.IsOpen);
        fileSystem.IsInitSlow = false;
        Assert.Equal(80, Send(session, new FuseRequest(), message, room: 80).Length);
    }

    private static byte[] Send(FuseSession session, FuseRequest request, byte[] message, int room)
    {
        using PiecedMemory readable = new(message);
        using PiecedMemory writable = new(room);
        request.Reset(readable.List, writable.List);
        int used = session.DispatchAsync(request).AsTask().GetAwaiter().GetResult();
        return SessionRig.CheckReply(message, readable, writable, used);
    }

    private sealed class ThrowingFileSystem(Func<Exception> make, bool later) : FuseFileSystem
    {
        public bool ThrowsInInit { get; set; }

        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation) =>
            ThrowsInInit ? ThrowAsync<Errno>() : new(Errno.Success);

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context) => ThrowAsync<Result<FuseAttrOut>>();

        public override ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context) =>
            ThrowAsync<Result<int>>();

        public override void Forget(NodeId node, ulong lookupCount) => throw make();

        public override void Destroy() => throw make();

        private ValueTask<T> ThrowAsync<T>() => later ? ThrowLaterAsync<T>() : throw make();

        private async ValueTask<T> ThrowLaterAsync<T>()
        {
            await Task.Yield();
            throw make();
        }
    }

    private sealed class SlowFileSystem : FuseFileSystem
    {
        private readonly TaskCompletionSource<byte[]> _content = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource<Errno> _init = new();

        public bool IsInitSlow { get; set; }

        public void Complete(byte[] content) => _content.SetResult(content);

        public void CompleteInit() => _init.SetResult(Errno.Success);

        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation) =>
            IsInitSlow ? new(_init.Task) : new(Errno.Success);

        public override async ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context)
        {
            byte[] content = await _content.Task;
            return destination.CopyFrom(0, content);
        }
    }
}
