#pragma warning disable CA2012 // The operations complete at once, and nothing may be between them and the measurement.
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>No operation allocates managed memory once it is warm.</summary>
[Collection(Measured.Name)]
public sealed unsafe class AllocationTests
{
    [Theory]
    [InlineData(InodeFileHandles.Prefer, false)]
    [InlineData(InodeFileHandles.Never, false)]
    [InlineData(InodeFileHandles.Prefer, true)]
    [InlineData(InodeFileHandles.Never, true)]
    public void Operations_allocate_nothing(InodeFileHandles handles, bool isTranslated) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        var clock = new TestClock();
        PassthroughOptions options = host.Options with { FileHandles = handles, Xattr = true, Clock = clock };
        using var guest = new Guest(!isTranslated ? options : options with
        {
            XattrMap = XattrMap.Parse(":map::user.virtiofs.:"),
            SecurityLabel = NegotiationMode.Always,
            UserIds = IdTranslation.Parse(["map:1000:2000:10", "squash-host:0:3:10"]),
            GroupIds = IdTranslation.Parse(["map:1000:2000:10"]),
        });
        if (isTranslated)
        {
            guest.As(1000, 1000, 1001);
        }

        PassthroughFileSystem system = guest.FileSystem;
        RequestContext context = guest.Context;
        NodeId file = guest.Walk("f").NodeId;
        NodeId directory = guest.Walk("d").NodeId;
        HandleId open = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
        HandleId list = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        FileName name = Guest.Name("f");
        FileName other = Guest.Name("ln");
        FileName missing = Guest.Name("missing");
        FileName made = Guest.Name("made");
        FileName renamed = Guest.Name("renamed");
        byte[] target = Guest.Terminated("target");
        byte[] attribute = Guest.Terminated("user.a");
        byte[] value = new byte[100];
        byte[] reply = new byte[8192];
        var writer = new DirectoryWriter();
        var piece = (IoVector*)System.Runtime.InteropServices.NativeMemory.Alloc((nuint)sizeof(IoVector));

        Measure("getattr", () => Check(system.GetAttrAsync(file, default, context).Result.Error));
        Measure("lookup", () => Check(system.LookupAsync(NodeId.Root, name, context).Result.Error));
        Measure("lookup missing", () => _ = system.LookupAsync(NodeId.Root, missing, context).Result.Error);
        Measure("lookup and forget", () =>
        {
            NodeEntry entry = system.LookupAsync(NodeId.Root, name, context).Result.Value;
            system.Forget(entry.NodeId, 1);
        });
        // Too young to be remembered, and then old enough.
        for (int lead = 0; lead <= 100; lead += 100)
        {
            clock.Lead = TimeSpan.FromSeconds(lead);
            Measure("lookup and last forget", () =>
            {
                NodeEntry entry = system.LookupAsync(NodeId.Root, other, context).Result.Value;
                system.Forget(entry.NodeId, 1);
            });
        }

        Measure("read", () => Check(system.ReadAsync(
            file, new FuseReadIn { Handle = open, Size = 4096 }, Piece(), context).Result.Error));
        Measure("write", () => Check(system.WriteAsync(
            file, new FuseWriteIn { Handle = open, Size = 4096 }, Piece(), context).Result.Error));
        Measure("flush, fsync", () =>
        {
            Check(system.FlushAsync(file, new FuseFlushIn { Handle = open }, context).Result);
            Check(system.FsyncAsync(file, new FuseFsyncIn { Handle = open }, context).Result);
        });
        var whole = new FuseLkIn { Handle = open, Owner = 1, End = long.MaxValue, Type = FuseLockType.Write };
        FuseLkIn none = whole with { Type = FuseLockType.Unlock };
        Measure("record lock and unlock, flock and unlock", () =>
        {
            Check(system.SetLockAsync(file, whole, mayWait: true, context).Result);
            Check(system.SetLockAsync(file, none, mayWait: false, context).Result);
            Check(system.SetLockAsync(file, whole with { Flags = FuseLockFlags.Flock }, mayWait: true, context).Result);
            Check(system.SetLockAsync(file, none with { Flags = FuseLockFlags.Flock }, mayWait: false, context).Result);
        });
        Measure("open and release", () =>
        {
            FuseOpenOut opened = system.OpenAsync(file, default, context).Result.Value;
            Check(system.ReleaseAsync(file, new FuseReleaseIn { Handle = opened.Handle }, context).Result);
        });
        Measure("setattr", () => Check(system.SetAttrAsync(
            file, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1a4 }, context).Result.Error));
        Measure("create, unlink, release, forget", () =>
        {
            FuseCreateOut created = system.CreateAsync(
                directory, made, new FuseCreateIn { Flags = OpenFlags.ReadWrite, Mode = 0x1a4 }, context).Result.Value;
            Check(system.UnlinkAsync(directory, made, context).Result);
            Check(system.ReleaseAsync(
                created.Entry.NodeId, new FuseReleaseIn { Handle = created.Open.Handle }, context).Result);
            system.Forget(created.Entry.NodeId, 1);
        });
        Measure("mkdir, rename, rmdir, forget", () =>
        {
            NodeEntry entry = system.MkdirAsync(directory, made, new FuseMkdirIn { Mode = 0x1ed }, context).Result.Value;
            Check(system.RenameAsync(
                directory, made, new FuseRename2In { NewParent = NodeId.Root }, renamed, context).Result);
            Check(system.RmdirAsync(NodeId.Root, renamed, context).Result);
            system.Forget(entry.NodeId, 1);
        });
        Measure("symlink, link, readlink, unlink, forget", () =>
        {
            NodeEntry entry = system.SymlinkAsync(directory, made, target, context).Result.Value;
            Check(system.ReadLinkAsync(entry.NodeId, reply, context).Result.Error);
            Check(system.LinkAsync(entry.NodeId, NodeId.Root, renamed, context).Result.Error);
            Check(system.UnlinkAsync(directory, made, context).Result);
            Check(system.UnlinkAsync(NodeId.Root, renamed, context).Result);
            system.Forget(entry.NodeId, 2);
        });
        foreach (bool isPlus in new[] { false, true })
        {
            Measure(isPlus ? "readdirplus" : "readdir", () =>
            {
                // In small pieces, so that leftovers are kept.
                ulong offset = 0;
                do
                {
                    writer.Reset(reply.AsMemory(0, 400), isPlus);
                    Check(system.ReadDirAsync(
                        NodeId.Root, new FuseReadIn { Handle = list, Offset = offset, Size = 400 }, writer, context).Result);
                    offset = LastOffset(reply.AsSpan(0, writer.Length), isPlus);
                }
                while (writer.Length != 0);
            });
        }

        Measure("xattrs", () =>
        {
            Check(system.SetXattrAsync(file, attribute, value, default, context).Result);
            Check(system.GetXattrAsync(file, attribute, reply, context).Result.Error);
            Check(system.ListXattrAsync(file, reply, context).Result.Error);
            Check(system.RemoveXattrAsync(file, attribute, context).Result);
        });
        if (isTranslated)
        {
            guest.Labelled("security.label", "secret");
            Measure("labelled mkdir, create, removal", () =>
            {
                NodeEntry entry = system.MkdirAsync(directory, made, new FuseMkdirIn { Mode = 0x1ed }, context).Result.Value;
                Check(system.RmdirAsync(directory, made, context).Result);
                system.Forget(entry.NodeId, 1);
                FuseCreateOut created = system.CreateAsync(
                    directory, made, new FuseCreateIn { Flags = OpenFlags.ReadWrite, Mode = 0x1a4 }, context).Result.Value;
                Check(system.UnlinkAsync(directory, made, context).Result);
                Check(system.ReleaseAsync(
                    created.Entry.NodeId, new FuseReleaseIn { Handle = created.Open.Handle }, context).Result);
                system.Forget(created.Entry.NodeId, 1);
            });
        }

        Measure("statfs, statx, syncfs, access", () =>
        {
            Check(system.StatfsAsync(file, context).Result.Error);
            Check(system.StatxAsync(file, default, context).Result.Error);
            Check(system.SyncFsAsync(file, context).Result);
            Check(system.AccessAsync(file, 4, context).Result);
        });
        Assert.Equal(Errno.Success, guest.Release(file, open));
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, list));
        System.Runtime.InteropServices.NativeMemory.Free(piece);

        IoVectorList Piece()
        {
            fixed (byte* memory = guest.Buffer)
            {
                *piece = new IoVector(memory, 4096);
            }

            return new IoVectorList(piece, 1, 4096);
        }
    });

    private static void Measure(string title, Action action)
    {
        // Long enough for the compiler's second look at hot code and for tables to reach their size.
        for (int i = 0; i < 200; i++)
        {
            action();
        }

        long allocated = Allocations.Least(() =>
        {
            for (int i = 0; i < 200; i++)
            {
                action();
            }
        });
        Assert.Equal((title, 0L), (title, allocated));
    }

    private static void Check(Errno error)
    {
        if (error != Errno.Success)
        {
            Assert.Fail($"{error}");
        }
    }

    private static ulong LastOffset(ReadOnlySpan<byte> entries, bool isPlus)
    {
        ulong offset = 0;
        while (entries.Length != 0)
        {
            entries = isPlus ? entries[128..] : entries;
            offset = System.Runtime.InteropServices.MemoryMarshal.Read<ulong>(entries[8..]);
            int length = System.Runtime.InteropServices.MemoryMarshal.Read<int>(entries[16..]);
            entries = entries[((24 + length + 7) & ~7)..];
        }

        return offset;
    }
}
