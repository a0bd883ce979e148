using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.7.</summary>
public sealed unsafe class FileTests
{
    [Theory, EveryMode]
    public void Only_files_and_directories_are_opened(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        foreach (string name in new[] { "fifo", "chr", "ln", "abs" })
        {
            Assert.Equal(Errno.EBADF, guest.Open(guest.Walk(name).NodeId, OpenFlags.ReadWrite).Error);
        }

        NodeId directory = guest.Walk("d").NodeId;
        HandleId handle = Guest.Good(guest.Open(directory)).Handle;
        Assert.Equal(Errno.EISDIR, guest.Read(directory, handle, 0, 10).Error);
        Assert.Equal(Errno.Success, guest.Release(directory, handle));
        Assert.Equal(Errno.EISDIR, guest.Open(directory, OpenFlags.ReadWrite).Error);
        Assert.Equal(Errno.ENOTDIR, guest.OpenDir(guest.Walk("f").NodeId).Error);
        Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
    });

    [Theory, EveryMode]
    public void Hostile_open_flags_are_refused_or_dropped(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("f").NodeId;
        NodeId directory = guest.Walk("d").NodeId;
        Assert.Equal(Errno.EINVAL, guest.Open(file, 3).Error);
        Assert.Equal(Errno.EINVAL, guest.Open(file, -1).Error);
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.Path | OpenFlags.Create | OpenFlags.Exclusive)).Handle;
        Assert.Equal(8192, Guest.Good(guest.Read(file, handle, 0, 10000)));
        Assert.Equal(Errno.Success, guest.Release(file, handle));
        Assert.Equal(Errno.EISDIR, guest.Open(directory, OpenFlags.TemporaryFile | OpenFlags.ReadWrite).Error);
        handle = Guest.Good(guest.Open(file, OpenFlags.Truncate)).Handle;
        Assert.Equal(0, new FileInfo(host["f"]).Length);
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Theory, EveryMode]
    public void Reads_end_where_the_file_ends(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        byte[] content = File.ReadAllBytes(host["f"]);
        NodeId file = guest.Walk("f").NodeId;
        HandleId handle = Guest.Good(guest.Open(file)).Handle;
        Assert.Equal(4096, Guest.Good(guest.Read(file, handle, 0, 4096)));
        Assert.Equal(content[..4096], guest.Buffer[..4096].ToArray());
        Assert.Equal(2192, Guest.Good(guest.Read(file, handle, 6000, 4096)));
        Assert.Equal(content[6000..], guest.Buffer[..2192].ToArray());
        Assert.Equal(0, Guest.Good(guest.Read(file, handle, 9000, 4096)));
        Assert.Equal(0, Guest.Good(guest.Read(file, handle, 0, 0)));
        foreach (ulong offset in new[] { (ulong)long.MaxValue, 1UL << 63, ulong.MaxValue })
        {
            Assert.Equal(Errno.EINVAL, guest.Read(file, handle, offset, 4096).Error);
        }

        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Fact]
    public void A_read_into_more_pieces_than_one_call_takes_fills_them_all() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        byte[] content = File.ReadAllBytes(host["f"]);
        NodeId file = guest.Walk("f").NodeId;
        HandleId handle = Guest.Good(guest.Open(file)).Handle;
        var pieces = new IoVector[2730];
        fixed (byte* memory = guest.Buffer)
        fixed (IoVector* list = pieces)
        {
            for (int i = 0; i < pieces.Length; i++)
            {
                pieces[i] = new IoVector(memory + (3 * i), 3);
            }

            Assert.Equal(8190, Guest.Good(Guest.Done(guest.FileSystem.ReadAsync(
                file,
                new FuseReadIn { Handle = handle, Size = 8190 },
                new IoVectorList(list, pieces.Length, 8190),
                guest.Context))));
        }

        Assert.Equal(content[..8190], guest.Buffer[..8190].ToArray());
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Theory, EveryMode]
    public void Writes_land_at_their_offset_or_at_the_end(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("d/x").NodeId;
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite | OpenFlags.Append)).Handle;
        Assert.Equal(4, Guest.Good(guest.Write(file, handle, 2, "abcd"u8)));
        Assert.Equal("x\0abcd", File.ReadAllText(host["d/x"]));
        Assert.Equal(2, Guest.Good(guest.Write(file, handle, 0, "ef"u8, OpenFlags.Append)));
        Assert.Equal("x\0abcdef", File.ReadAllText(host["d/x"]));
        Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "y"u8, OpenFlags.Append, FuseWriteFlags.Cache)));
        Assert.Equal("y\0abcdef", File.ReadAllText(host["d/x"]));
        Assert.Equal(Errno.EINVAL, guest.Write(file, handle, 1UL << 63, "y"u8).Error);
        Assert.Equal(1 << 20, Guest.Good(guest.Write(file, handle, 0, new byte[1 << 20])));
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Fact]
    public void A_full_disk_in_the_middle_of_a_write_tells_how_much_was_written() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        host.Mount("d", "-t", "tmpfs", "-o", "size=256k", "none");
        using var guest = new Guest(host.Options);
        FuseCreateOut made = Guest.Good(guest.Create(guest.Walk("d").NodeId, "big"));
        NodeId node = made.Entry.NodeId;
        int written = Guest.Good(guest.Write(node, made.Open.Handle, 0, new byte[1 << 20]));
        Assert.InRange(written, 128 << 10, 256 << 10);
        Assert.Equal(Errno.ENOSPC, guest.Write(node, made.Open.Handle, (ulong)written, new byte[4096]).Error);
        Assert.Equal(Errno.Success, guest.Release(node, made.Open.Handle));
    });

    [Theory, EveryMode]
    public void A_handle_is_good_for_its_node_and_access_only(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("f").NodeId;
        NodeId other = guest.Walk("d/x").NodeId;
        HandleId reads = Guest.Good(guest.Open(file)).Handle;
        HandleId writes = Guest.Good(guest.Open(file, OpenFlags.WriteOnly)).Handle;
        Assert.Equal(Errno.EBADF, guest.Read(file, writes, 0, 10).Error);
        Assert.Equal(Errno.EBADF, guest.Write(file, reads, 0, "x"u8).Error);
        HandleId[] unknown = [default, new(ulong.MaxValue), new(reads.Value + 1000), new(reads.Value | (1UL << 32))];
        foreach (HandleId handle in unknown)
        {
            Refused(file, handle);
        }

        Refused(other, reads);
        Assert.Equal(Errno.Success, guest.Release(file, reads));
        Refused(file, reads);
        Assert.Equal(Errno.Success, guest.Release(file, writes));

        void Refused(NodeId node, HandleId handle)
        {
            Assert.Equal(Errno.EBADF, guest.Read(node, handle, 0, 10).Error);
            Assert.Equal(Errno.EBADF, guest.Write(node, handle, 0, "x"u8).Error);
            Assert.Equal(Errno.EBADF, guest.Flush(node, handle));
            Assert.Equal(Errno.EBADF, guest.Fsync(node, handle));
            Assert.Equal(Errno.EBADF, guest.GetAttr(node, handle).Error);
            Assert.Equal(Errno.EBADF, guest.ReadDir(node, handle).Error);
            Assert.Equal(Errno.EBADF, guest.Release(node, handle));
            Assert.Equal(Errno.EBADF, guest.ReleaseDir(node, handle));
            Assert.Equal(Errno.EBADF, guest.SetAttr(
                node, new FuseSetAttrIn { Valid = SetAttrValid.Handle, Handle = handle }).Error);
        }
    });

    // Closed by who is the last to use them; or, as a rule, left to the next OPEN.
    [Theory]
    [InlineData(0)]
    [InlineData(16)]
    public void Releases_during_reads_close_each_descriptor_once(int spareFiles) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        using var guest = new Guest(host.Options with { SpareFiles = spareFiles });
        NodeId file = guest.Walk("f").NodeId;
        const int rounds = 2000;
        var handle = new ulong[1];
        long good = 0;
        Worker.RunAll(4, i =>
        {
            byte* memory = stackalloc byte[64];
            var context = new RequestContext();
            if (i == 0)
            {
                for (int round = 0; round < rounds; round++)
                {
                    HandleId opened = Guest.Good(guest.Open(file)).Handle;
                    Volatile.Write(ref handle[0], opened.Value);
                    if (round % 100 == 0)
                    {
                        // However the processors are shared, some reads find the file open.
                        long before = Interlocked.Read(ref good);
                        Assert.True(SpinWait.SpinUntil(() => Interlocked.Read(ref good) != before, TimeSpan.FromMinutes(1)));
                    }

                    Thread.Yield();
                    Assert.Equal(Errno.Success, guest.Release(file, opened));
                    Assert.Equal(Errno.EBADF, guest.Release(file, opened));
                }

                Volatile.Write(ref handle[0], ulong.MaxValue);
                return;
            }

            ulong current;
            while ((current = Volatile.Read(ref handle[0])) != ulong.MaxValue)
            {
                IoVector piece = new(memory, 64);
                Result<int> read = Guest.Done(guest.FileSystem.ReadAsync(
                    file,
                    new FuseReadIn { Handle = new HandleId(current) },
                    new IoVectorList(&piece, 1, 64),
                    context));
                // EBADF from us or 64 bytes of this file; the host's EBADF, or another file, would be a closed descriptor.
                Assert.True(read.IsError ? read.Error == Errno.EBADF : read.Value == 64);
                Interlocked.Add(ref good, read.IsError ? 0 : 1);
            }
        });
        Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
    });

    [Theory, EveryMode]
    public void Seek_fallocate_and_copy_check_their_arguments(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("f").NodeId;
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
        PassthroughFileSystem system = guest.FileSystem;
        Result<ulong> Seek(ulong offset, uint whence) => Guest.Done(system.LseekAsync(
            file, new FuseLseekIn { Handle = handle, Offset = offset, Whence = whence }, guest.Context));
        Assert.Equal(Errno.EINVAL, Seek(0, 99).Error);
        Assert.Equal(Errno.ENXIO, Seek(9000, 4).Error);
        Assert.Equal(Errno.ENXIO, Seek(1UL << 63, 3).Error);
        Assert.Equal(Errno.ENXIO, Seek(ulong.MaxValue, 4).Error);
        Assert.Equal(8192UL, Guest.Good(Seek(0, 4)));

        Errno Allocate(ulong offset, ulong length, uint mode) => Guest.Done(system.FallocateAsync(
            file, new FuseFallocateIn { Handle = handle, Offset = offset, Length = length, Mode = mode }, guest.Context));
        Assert.Equal(Errno.EOPNOTSUPP, Allocate(0, 4096, 0x1000));
        Assert.Equal(Errno.EINVAL, Allocate(0, 0, 0));
        Assert.Equal(Errno.EINVAL, Allocate(0, 1UL << 63, 0));
        Assert.Equal(Errno.Success, Allocate(8192, 4096, 0));
        Assert.Equal(12288, new FileInfo(host["f"]).Length);

        Result<ulong> Copy(ulong from, ulong to, ulong length, ulong flags = 0) => Guest.Done(system.CopyFileRangeAsync(
            file,
            new FuseCopyFileRangeIn
            {
                SourceHandle = handle,
                SourceOffset = from,
                DestinationNode = file,
                DestinationHandle = handle,
                DestinationOffset = to,
                Length = length,
                Flags = flags,
            },
            guest.Context));
        Assert.Equal(Errno.EINVAL, Copy(0, 8192, 100, flags: 1).Error);
        Assert.Equal(Errno.EINVAL, Copy(0, 50, 100).Error);
        Assert.Equal(Errno.EINVAL, Copy(1UL << 63, 0, 100).Error);
        Assert.Equal(100UL, Guest.Good(Copy(0, 8192, 100)));
        byte[] content = File.ReadAllBytes(host["f"]);
        Assert.Equal(content[..100], content[8192..8292]);
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Fact]
    public void Open_replies_follow_the_cache_mode() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        const OpenReplyFlags noFlush = OpenReplyFlags.NoFlush;
        const OpenReplyFlags listing = OpenReplyFlags.KeepCache | OpenReplyFlags.CacheDir;
        (CacheMode Mode, OpenReplyFlags File, OpenReplyFlags Directory)[] expected =
        [
            (CacheMode.Never, OpenReplyFlags.DirectIo | OpenReplyFlags.ParallelDirectWrites, 0),
            (CacheMode.Metadata, OpenReplyFlags.DirectIo, listing),
            (CacheMode.Auto, 0, 0),
            (CacheMode.Always, OpenReplyFlags.KeepCache, listing),
        ];
        var pairs = from one in expected from locks in new bool?[] { null, true, false } select (one, locks);
        foreach (((CacheMode mode, OpenReplyFlags fileFlags, OpenReplyFlags directoryFlags), bool? locks) in pairs)
        {
            // FLUSH is what ends a process's record locks, so it is left out only where those stay in the guest.
            bool isLocal = locks == false || (locks is null && mode == CacheMode.Always);
            using var guest = new Guest(host.Options with { Cache = mode, RemoteLocks = locks });
            NodeId file = guest.Walk("f").NodeId;
            FuseOpenOut opened = Guest.Good(guest.Open(file, OpenFlags.ReadWrite));
            Assert.Equal(fileFlags | (isLocal ? noFlush : 0), opened.Flags);
            Assert.Equal(Errno.Success, guest.Release(file, opened.Handle));
            opened = Guest.Good(guest.OpenDir(NodeId.Root));
            Assert.Equal(directoryFlags, opened.Flags);
            Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, opened.Handle));
        }

        using (var guest = new Guest(host.Options with { Writeback = true }))
        {
            NodeId file = guest.Walk("f").NodeId;
            FuseOpenOut opened = Guest.Good(guest.Open(file));
            Assert.Equal(OpenReplyFlags.None, opened.Flags);
            Assert.Equal(Errno.Success, guest.Release(file, opened.Handle));
        }
    });

    [Fact]
    public void Cached_content_is_kept_only_while_the_file_is_as_it_was() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        Host.Run("touch", "-d", "2001-01-01", host["f"]);
        using var guest = new Guest(host.Options);
        NodeId file = guest.Walk("f").NodeId;
        Assert.False(Keeps());
        LetChangeTimeAge();
        Assert.False(Keeps());
        Assert.True(Keeps());
        Assert.True(Keeps());

        // The same size, and the time of modification put back.
        DateTime time = File.GetLastWriteTimeUtc(host["f"]);
        File.WriteAllBytes(host["f"], new byte[8192]);
        File.SetLastWriteTimeUtc(host["f"], time);
        Assert.False(Keeps());

        bool Keeps() => KeepsCache(guest, file, handle => Assert.False(guest.Read(file, handle, 0, 4096).IsError));
    });

    [Fact]
    public void Only_a_guest_that_has_read_or_written_a_file_has_content_to_keep() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        Host.Run("touch", "-d", "2001-01-01", host["f"]);
        using var guest = new Guest(host.Options);
        NodeId file = guest.Walk("f").NodeId;
        Assert.False(Keeps(handle => Assert.False(guest.Write(file, handle, 0, new byte[4096]).IsError)));
        LetChangeTimeAge();

        // At the first the daemon looks how the file is and has the guest drop what it has written. Then there is nothing to keep.
        Assert.False(Keeps(_ => { }));
        Assert.False(Keeps(_ => { }));
        Assert.False(Keeps(handle => Assert.Equal(1, guest.Read(file, handle, 0, 1).Value)));
        Assert.True(Keeps(_ => { }));

        bool Keeps(Action<HandleId> use) => KeepsCache(guest, file, use);
    });

    // A change time that is now is too new to tell a second change from the first.
    private static void LetChangeTimeAge()
    {
        long changed = DateTime.UtcNow.Ticks;
        SpinWait.SpinUntil(() => DateTime.UtcNow.Ticks - changed > TimeSpan.FromMilliseconds(60).Ticks);
    }

    // Opens a file, uses it and closes it. Whether the guest was to keep what it had of it.
    private static bool KeepsCache(Guest guest, NodeId file, Action<HandleId> use)
    {
        FuseOpenOut opened = Guest.Good(guest.Open(file, OpenFlags.ReadWrite));
        use(opened.Handle);
        Assert.Equal(Errno.Success, guest.Release(file, opened.Handle));
        return (opened.Flags & OpenReplyFlags.KeepCache) != 0;
    }
}
