#pragma warning disable CA2012, xUnit1031 // Each task is complete when its result is asked for, or the test fails.
using System.Threading.Tasks.Sources;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>A READ that the file system completes later but soon.</summary>
public sealed class SessionLateReadTests
{
    [Fact]
    public void The_reply_is_written_where_the_read_completes_and_nothing_is_allocated()
    {
        using var fileSystem = new LateFileSystem();
        var waits = new QueueWaits { Limit = 1 };
        var session = new FuseSession(fileSystem, new FuseSessionOptions(), new RecordingLogger());
        var request = new FuseRequest(new FuseCounters(), waits);
        using (var call = new PiecedMemory(Message.Init(SessionRig.AllFeatures)))
        using (var room = new PiecedMemory(80))
        {
            request.Reset(call.List, room.List);
            Assert.Equal(80, session.DispatchAsync(request).Result);
        }

        using var readable = new PiecedMemory(
            Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { Size = 4096 })));
        using var writable = new PiecedMemory(4112);
        Action read = () =>
        {
            for (int i = 0; i < 1000; i++)
            {
                request.Reset(readable.List, writable.List);
                ValueTask<int> task = session.DispatchAsync(request);
                if (task.IsCompleted || waits.Count != 0)
                {
                    throw new InvalidOperationException("it does not wait, or counts as one that may do so for ever");
                }

                fileSystem.Complete(4096);
                if (task.Result != 4112)
                {
                    throw new InvalidOperationException("the reply has another length");
                }
            }
        };
        read();
        Assert.Equal(0, Allocations.Least(read));

        // An error, a number that cannot be, and an exception become errors of the reply.
        foreach ((Result<int> result, Exception? exception, Errno expected) in ((Result<int>, Exception?, Errno)[])
            [(Errno.EACCES, null, Errno.EACCES), (5000, null, Errno.EIO), (0, new IOException("test"), Errno.EIO)])
        {
            request.Reset(readable.List, writable.List);
            ValueTask<int> task = session.DispatchAsync(request);
            fileSystem.Failure = exception;
            fileSystem.Complete(result);
            fileSystem.Failure = null;
            Assert.Equal(16, task.Result);
            Assert.Equal(-(int)expected, BitConverter.ToInt32(writable.Read(16), 4));
        }
    }

    private sealed class LateFileSystem : FuseFileSystem, IValueTaskSource<Result<int>>
    {
        private LateResult<Result<int>> _late;

        public Exception? Failure { get; set; }

        public override ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context)
        {
            context.EndsSoon = true;
            _late.Reset();
            return new(this, _late.Version);
        }

        public void Complete(Result<int> result) => _late.SetResult(result);

        Result<int> IValueTaskSource<Result<int>>.GetResult(short token) =>
            Failure is null ? _late.GetResult(token) : throw Failure;

        ValueTaskSourceStatus IValueTaskSource<Result<int>>.GetStatus(short token) => _late.GetStatus(token);

        void IValueTaskSource<Result<int>>.OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _late.OnCompleted(continuation, state, token);
    }
}
