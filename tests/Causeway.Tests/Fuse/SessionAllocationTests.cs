using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>No request of the hot kinds allocates managed memory, whatever its pieces.</summary>
public sealed class SessionAllocationTests
{
    private const int WarmUp = 2_000;
    private const int Measured = 10_000;

    public static TheoryData<string, byte[], int, int> Hot => new()
    {
        { "GETATTR", Message.Request(FuseOpcode.GetAttr, 1, new byte[16]), 120, 120 },
        { "LOOKUP", Message.Request(FuseOpcode.Lookup, 1, Message.Name("some-file.txt")), 144, 144 },
        { "LOOKUP of a missing name", Message.Request(FuseOpcode.Lookup, 1, Message.Name("missing")), 144, 16 },
        { "READ", Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { Size = 4096 })), 4112, 4112 },
        {
            "WRITE",
            Message.Request(FuseOpcode.Write, 2, Message.Bytes(new FuseWriteIn { Size = 4096 }), new byte[4096]), 24, 24
        },
        {
            "READDIRPLUS",
            Message.Request(FuseOpcode.ReadDirPlus, 1, Message.Bytes(new FuseReadIn { Size = 4096 })), 4112, 16 + (25 * 160)
        },
        { "READDIR", Message.Request(FuseOpcode.ReadDir, 1, Message.Bytes(new FuseReadIn { Size = 4096 })), 4112, 16 + (128 * 32) },
        { "OPEN", Message.Request(FuseOpcode.Open, 2, new byte[8]), 32, 32 },
        { "RELEASE", Message.Request(FuseOpcode.Release, 2, new byte[24]), 16, 16 },
        { "FLUSH", Message.Request(FuseOpcode.Flush, 2, new byte[24]), 16, 16 },
        { "FORGET", Message.Request(FuseOpcode.Forget, 2, Message.Bytes(1UL)), 0, 0 },
        {
            "GETXATTR", Message.Request(FuseOpcode.GetXattr, 2, Message.Bytes(100UL), Message.Name("user.a")), 116, 16 + 5
        },
        {
            "CREATE with groups",
            Message.Request(FuseOpcode.Create, 1, new byte[16], Message.Name("new")).WithExtensions(Message.Groups(4, 5)),
            160,
            160
        },
        { "a malformed GETATTR", Message.Request(FuseOpcode.GetAttr, 1, new byte[15]), 120, 16 },
    };

    [Theory]
    [MemberData(nameof(Hot))]
    public void A_request_allocates_nothing(string what, byte[] message, int room, int expected)
    {
        Assert.NotEmpty(what);
        using TrivialFileSystem fileSystem = new();
        FuseSession session = new(fileSystem, new FuseSessionOptions(), new RecordingLogger());
        FuseRequest request = new();
        Open(session, request);

        foreach (int[] cuts in (int[][])[[], [5, 11, 50, 70]])
        {
            using PiecedMemory readable = new(message, cuts);
            using PiecedMemory writable = new(room, cuts);
            Repeat(session, request, readable, writable, expected, WarmUp);

            Assert.Equal(0, Allocations.Least(() => Repeat(session, request, readable, writable, expected, Measured)));
        }
    }

    private static void Open(FuseSession session, FuseRequest request)
    {
        using PiecedMemory readable = new(Message.Init(SessionRig.AllFeatures));
        using PiecedMemory writable = new(80);
        Repeat(session, request, readable, writable, 80, 1);
    }

    private static void Repeat(
        FuseSession session, FuseRequest request, PiecedMemory readable, PiecedMemory writable, int expected, int count)
    {
        for (int i = 0; i < count; i++)
        {
            request.Reset(readable.List, writable.List);
            ValueTask<int> task = session.DispatchAsync(request);
            int used = task.IsCompletedSuccessfully ? task.Result : -1;
            if (used != expected)
            {
                throw new InvalidOperationException($"the reply has {used} bytes");
            }
        }
    }

    private sealed class TrivialFileSystem : FuseFileSystem
    {
        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation)
        {
            negotiation.Granted |= FuseFeatures.CreateSuppGroup;
            return new(Errno.Success);
        }

        public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context) =>
            name.Bytes.SequenceEqual("missing"u8)
                ? new((Result<NodeEntry>)Errno.ENOENT)
                : new((Result<NodeEntry>)RecordingFileSystem.SampleEntry(42, 0x8000));

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context) =>
            new((Result<FuseAttrOut>)default(FuseAttrOut));

        public override ValueTask<Result<FuseOpenOut>> OpenAsync(
            NodeId node, FuseOpenIn arguments, RequestContext context) =>
            new((Result<FuseOpenOut>)default(FuseOpenOut));

        public override ValueTask<Result<FuseCreateOut>> CreateAsync(
            NodeId parent, FileName name, FuseCreateIn arguments, RequestContext context) =>
            new((Result<FuseCreateOut>)default(FuseCreateOut));

        public override ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context) =>
            new((Result<int>)(int)destination.Length);

        public override ValueTask<Result<int>> WriteAsync(
            NodeId node, FuseWriteIn arguments, IoVectorList source, RequestContext context) =>
            new((Result<int>)(int)source.Length);

        public override ValueTask<Errno> ReleaseAsync(
            NodeId node, FuseReleaseIn arguments, RequestContext context) => new(Errno.Success);

        public override ValueTask<Errno> FlushAsync(NodeId node, FuseFlushIn arguments, RequestContext context) =>
            new(Errno.Success);

        public override ValueTask<Result<int>> GetXattrAsync(
            NodeId node, ReadOnlyMemory<byte> name, Memory<byte> destination, RequestContext context)
        {
            "value"u8.CopyTo(destination.Span);
            return new((Result<int>)5);
        }

        public override ValueTask<Errno> ReadDirAsync(
            NodeId node, FuseReadIn arguments, DirectoryWriter entries, RequestContext context)
        {
            NodeEntry entry = RecordingFileSystem.SampleEntry(42, 0x8000);
            while (entries.IsPlus ? entries.TryAdd(in entry, "seventy"u8, 1) : entries.TryAdd("seventy"u8, 42, 1, 8))
            {
            }

            return new(Errno.Success);
        }
    }
}
