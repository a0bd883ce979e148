using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>A guest that changes a request while it is handled (H10, H8): every byte is read once.</summary>
public sealed class SessionDoubleFetchTests
{
    public static TheoryData<string> Messages => [.. GoldenMessage.Names];

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_that_changes_while_the_file_system_works_on_it_is_answered_as_it_was(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        SessionRig rig = golden.Prepare();
        using PiecedMemory readable = new(golden.Request, 30, 50);
        using PiecedMemory writable = new(golden.Room);
        // WRITE's payload is in place on purpose, and BATCH_FORGET reads entries while it goes, each once.
        FuseOpcode opcode = (FuseOpcode)BitConverter.ToUInt32(golden.Request, 4);
        int constant = opcode is FuseOpcode.Write or FuseOpcode.BatchForget ? 80 : int.MaxValue;
        bool changed = false;
        rig.FileSystem.OnCall = () =>
        {
            byte[] other = [.. golden.Request.Select((value, i) => i < constant ? (byte)~value : value)];
            readable.Write(other);
            changed = true;
        };

        int used = rig.Run(readable.List, writable.List);

        Assert.Equal(golden.Calls.Count > 0, changed);
        Assert.Equal(golden.Calls, rig.FileSystem.Calls);
        Assert.Equal(Convert.ToHexString(golden.Reply), Convert.ToHexString(writable.Read(used)));
    }

    public static TheoryData<string, byte[], byte[]> Flips => new()
    {
        {
            "the size of a WRITE",
            Message.Request(FuseOpcode.Write, 2, Message.Bytes(new FuseWriteIn { Size = 16 }), new byte[16]),
            Message.Request(FuseOpcode.Write, 2, Message.Bytes(new FuseWriteIn { Size = 0xffff_ff00 }), new byte[16])
        },
        {
            "the end of a name",
            Message.Request(FuseOpcode.Lookup, 2, Message.Name(new string('a', 100))),
            Message.Request(FuseOpcode.Lookup, 2, [.. Enumerable.Repeat((byte)'a', 101)])
        },
        {
            "a name",
            Message.Request(FuseOpcode.Unlink, 2, Message.Name("aa")),
            Message.Request(FuseOpcode.Unlink, 2, Message.Name(".."))
        },
        {
            "the length of a request",
            Message.Request(FuseOpcode.Mkdir, 2, new byte[8], Message.Name("d")),
            Message.Request(FuseOpcode.Mkdir, 2, new byte[8], Message.Name("d")).WithLength(0xffff)
        },
        {
            "the number of entries to forget",
            Message.Request(FuseOpcode.BatchForget, 0, Message.Bytes(new FuseBatchForgetIn { Count = 6 }), new byte[96]),
            Message.Request(FuseOpcode.BatchForget, 0, Message.Bytes(new FuseBatchForgetIn { Count = uint.MaxValue }), new byte[96])
        },
        {
            "the groups of a creation",
            Message.Request(FuseOpcode.Mkdir, 2, new byte[8], Message.Name("d")).WithExtensions(Message.Groups(1, 2, 3)),
            Message.Request(FuseOpcode.Mkdir, 2, new byte[8], Message.Name("d")).WithExtensions(Message.Groups(1))
        },
        {
            "the size of a value",
            Message.Request(FuseOpcode.SetXattr, 2, Message.Bytes(8UL), Message.Name("user.a"), new byte[8]),
            Message.Request(FuseOpcode.SetXattr, 2, Message.Bytes(0xffff_ffffUL), Message.Name("user.a"), new byte[8])
        },
    };

    [Theory]
    [MemberData(nameof(Flips))]
    public void A_request_that_another_thread_keeps_changing_does_no_harm(string what, byte[] one, byte[] other)
    {
        const int iterations = 20_000;
        Assert.NotEmpty(what);
        SessionRig rig = SessionRig.Open(FuseFeatures.CreateSuppGroup);
        using PiecedMemory readable = new(one, 44, 90);
        using PiecedMemory writable = new(200, 10);
        bool isDone = false;
        Thread flipper = new(() =>
        {
            while (!Volatile.Read(ref isDone))
            {
                readable.Write(other);
                readable.Write(one);
            }
        });
        flipper.Start();

        try
        {
            for (int i = 0; i < iterations; i++)
            {
                // The recording file system asserts that the payload it is given has the size it is told.
                int used = rig.Run(readable.List, writable.List);
                Assert.InRange(used, 0, 200);
                Assert.True(used == 0 || BitConverter.ToInt32(writable.Read(4)) == used);
            }
        }
        finally
        {
            Volatile.Write(ref isDone, true);
            flipper.Join();
        }

        Assert.True(readable.IsGuardIntact());
        Assert.True(writable.IsGuardIntact());
        Assert.DoesNotContain(rig.FileSystem.Calls, call => call.Contains("name=..", StringComparison.Ordinal));
        Assert.DoesNotContain(rig.Logger.Entries, entry => entry.Event is 302 or 303);
    }

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_reply_that_overwrites_its_own_request_does_no_harm(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        SessionRig rig = golden.Prepare();
        using PiecedMemory memory = new(Math.Max(golden.Request.Length, golden.Room));
        memory.Write(golden.Request);
        IoVectorList readable = Alias(memory, golden.Request.Length, out IoVector[] requestPieces);
        IoVectorList writable = Alias(memory, golden.Room, out IoVector[] replyPieces);
        int used = rig.Run(readable, writable);

        Assert.Equal(golden.Calls, rig.FileSystem.Calls);
        Assert.Equal(Convert.ToHexString(golden.Reply), Convert.ToHexString(memory.Read(used)));
        Assert.True(memory.IsGuardIntact());
        GC.KeepAlive(requestPieces);
        GC.KeepAlive(replyPieces);
    }

    // A second list over the first bytes of the same memory, whose pieces are an array of their own.
    private static unsafe IoVectorList Alias(PiecedMemory memory, int length, out IoVector[] pieces)
    {
        pieces = GC.AllocateArray<IoVector>(1, pinned: true);
        pieces[0] = new IoVector(memory.List.Vectors[0].Address, (nuint)length);
        return new IoVectorList((IoVector*)System.Runtime.CompilerServices.Unsafe.AsPointer(ref pieces[0]), 1, length);
    }
}
