#pragma warning disable CA2012 // The operations complete at once, and nothing may be between them and the measurement.
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>Tests that measure what the process does, alone: another's garbage collection would be measured too.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Measured
{
    public const string Name = "measured";
}

/// <summary>Which system calls each operation makes once it is warm: performance.md section 2, column "Causeway".</summary>
[Collection(Measured.Name)]
public sealed class SystemCallTests
{
    private static readonly FuseSetAttrIn s_mode = new() { Valid = SetAttrValid.Mode, Mode = 0x1a4 };
    private static readonly FuseSetAttrIn s_owner = new() { Valid = SetAttrValid.UserId, UserId = 5 };
    private static readonly FuseSetAttrIn s_size = new() { Valid = SetAttrValid.Size, Size = 8192 };
    private static readonly FuseSetAttrIn s_time = new() { Valid = SetAttrValid.ModificationTimeNow };

    [Fact]
    public void Operations_on_nodes_by_handle_make_as_few_calls_as_prove_the_answer() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            NodeId file = guest.Walk("f").NodeId;
            NodeId link = guest.Walk("ln").NodeId;
            trace.Expect("getattr by handle", "open_by_handle_at statx", () => guest.GetAttr(file));
            trace.Expect("getattr pinned", "statx", () => guest.GetAttr(file));
            trace.Expect("lookup known and pinned", "statx", () => guest.Lookup(NodeId.Root, "f"));
            trace.Expect("lookup missing", "statx", () => guest.Lookup(NodeId.Root, "missing"));
            trace.Expect("lookup new", "statx name_to_handle_at", () => guest.Lookup(NodeId.Root, "d"));
            trace.Expect("lookup by handle", "statx name_to_handle_at", () => guest.Lookup(NodeId.Root, "d"));
            trace.Expect("lookup by handle again", "statx open_by_handle_at", () => guest.Lookup(NodeId.Root, "d"));
            trace.Expect("lookup from then on", "statx", () => guest.Lookup(NodeId.Root, "d"));
            NodeId directory = guest.Walk("d").NodeId;
            trace.Expect("readlink by handle", "open_by_handle_at readlinkat", () => ReadLink(guest, link));

            Common(trace, guest, file, directory, link, "open_by_handle_at");
            // What the guest has made keeps a descriptor as long as there are enough, and then nothing has to be looked up again.
            trace.Expect("mkdir", "mkdirat openat2 statx", () => guest.Mkdir(NodeId.Root, "md"));
            trace.Expect("mknod", "mknodat openat2 statx", () => guest.Mknod(NodeId.Root, "mn", 0x81a4));
            trace.Expect("symlink", "symlinkat openat2 statx", () => guest.Symlink(NodeId.Root, "sl", "t"));
            FuseCreateOut made = default;
            trace.Expect("create", "openat2 statx open_tree", () => made = guest.Create(NodeId.Root, "c").Value);
            trace.Expect("release of it", "close", () => guest.Release(made.Entry.NodeId, made.Open.Handle));
            trace.Expect("rename over it", "renameat2", () => guest.Rename(NodeId.Root, "mn", NodeId.Root, "c"));
            trace.Expect("unlink", "unlinkat", () => guest.Unlink(NodeId.Root, "c"));
            trace.Expect("rmdir", "unlinkat", () => guest.Rmdir(NodeId.Root, "md"));
            Directory.CreateDirectory(host["fresh"]);
            Directory.CreateDirectory(host["fresh/dir"]);
            NodeId fresh = guest.Walk("fresh").NodeId;
            _ = guest.GetAttr(fresh);
            File.WriteAllText(host["fresh/a"], "");
            trace.Expect("unlink of a name never handed out", "unlinkat", () => guest.Unlink(fresh, "a"));
            File.WriteAllText(host["fresh/a"], "");
            _ = guest.Lookup(fresh, "a");
            trace.Expect("rename onto a name never handed out", "renameat2", () => guest.Rename(fresh, "a", fresh, "b"));
            trace.Expect("back, onto one that was", "renameat2", () => guest.Rename(fresh, "b", fresh, "a"));
            trace.Expect("and again", "renameat2", () => guest.Rename(fresh, "a", fresh, "b"));
            File.WriteAllText(host["fresh/a"], "");
            _ = guest.Lookup(fresh, "a");
            trace.Expect("rename over one by handle", "renameat2 statx open_by_handle_at renameat2",
                () => guest.Rename(fresh, "a", fresh, "b"));
            trace.Expect("unlink by handle", "statx open_by_handle_at unlinkat", () => guest.Unlink(fresh, "b"));
            _ = guest.Lookup(fresh, "dir");
            trace.Expect("rmdir by handle", "statx open_by_handle_at unlinkat", () => guest.Rmdir(fresh, "dir"));
            ReadDirPlus(trace, guest, host, "statx name_to_handle_at", "statx name_to_handle_at", "statx open_by_handle_at");
        });

    [Fact]
    public void What_is_old_is_found_by_one_call_again_and_after_it_was_forgotten() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            foreach (string name in (ReadOnlySpan<string>)["f", "d", "ln", "fifo", "chr"])
            {
                NodeEntry entry = default;
                trace.Expect($"lookup new: {name}", "statx name_to_handle_at", () => entry = guest.Lookup(NodeId.Root, name).Value);
                trace.Expect("forget", "", () => guest.Forget(entry.NodeId));
                trace.Expect("lookup after forget", "statx", () => entry = guest.Lookup(NodeId.Root, name).Value);
                trace.Expect("lookup by handle", "statx", () => guest.Lookup(NodeId.Root, name));
                trace.Expect("and again", "statx", () => guest.Lookup(NodeId.Root, name));
                trace.Expect("getattr by handle", "open_by_handle_at statx", () => guest.GetAttr(entry.NodeId));
                trace.Expect("forget one that is pinned", "", () => guest.Forget(entry.NodeId, 3));
                trace.Expect("lookup after forget", "statx", () => entry = guest.Lookup(NodeId.Root, name).Value);
                guest.Forget(entry.NodeId);
            }

            NodeId directory = guest.Walk("d").NodeId;
            File.CreateSymbolicLink(host["made"], "f");
            NodeEntry linked = guest.Walk("f");
            _ = guest.Link(linked.NodeId, directory, "g");
            guest.Forget(linked.NodeId, 2);
            trace.Expect("lookup by another name", "statx", () => linked = guest.Lookup(directory, "g").Value);
            trace.Expect("not yet looked up", "statx name_to_handle_at", () => guest.Lookup(NodeId.Root, "made"));
            NodeEntry made = default;
            trace.Expect("made by the guest", "mkdirat openat2 statx", () => made = guest.Mkdir(NodeId.Root, "md").Value);
            trace.Expect("forget", "", () => guest.Forget(made.NodeId));
            trace.Expect("lookup, asked once", "statx name_to_handle_at", () => made = guest.Lookup(NodeId.Root, "md").Value);
            guest.Forget(made.NodeId);
            trace.Expect("lookup, not asked again", "statx", () => guest.Lookup(NodeId.Root, "md"));

            Directory.CreateDirectory(host["two"]);
            File.WriteAllText(host["two/a"], "");
            File.WriteAllText(host["two/b"], "");
            NodeId two = guest.Walk("two").NodeId;
            HandleId handle = Guest.Good(guest.OpenDir(two)).Handle;
            const string listed = "statx name_to_handle_at statx name_to_handle_at";
            trace.Expect("readdirplus new", $"getdents64 {listed}", () => Forget(guest, guest.ReadDir(two, handle, isPlus: true).Value));
            foreach (string when in (ReadOnlySpan<string>)["after forget", "known"])
            {
                trace.Expect(
                    $"readdirplus {when}", "lseek getdents64 statx statx", () => guest.ReadDir(two, handle, isPlus: true));
            }

            Assert.Equal(Errno.Success, guest.ReleaseDir(two, handle));
        },
        change: options => options with { Clock = TestClock.Ahead });

    [Fact]
    public void Handles_of_what_is_young_are_asked_for_each_time() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            for (int i = 0; i < 3; i++)
            {
                NodeEntry entry = default;
                trace.Expect("lookup", "statx name_to_handle_at", () => entry = guest.Lookup(NodeId.Root, "f").Value);
                trace.Expect("forget", "", () => guest.Forget(entry.NodeId));
            }
        });

    [Fact]
    public void Operations_on_nodes_by_descriptor_make_as_few_calls_as_prove_the_answer() => Run(
        InodeFileHandles.Never,
        (trace, guest, host) =>
        {
            NodeId file = guest.Walk("f").NodeId;
            NodeId link = guest.Walk("ln").NodeId;
            trace.Expect("getattr", "statx", () => guest.GetAttr(file));
            trace.Expect("lookup known", "statx", () => guest.Lookup(NodeId.Root, "f"));
            trace.Expect("lookup missing", "openat2", () => guest.Lookup(NodeId.Root, "missing"));
            trace.Expect("lookup new", "openat2 statx", () => guest.Lookup(NodeId.Root, "d"));
            NodeId directory = guest.Walk("d").NodeId;

            Common(trace, guest, file, directory, link, "openat");
            trace.Expect("mkdir", "mkdirat openat2 statx", () => guest.Mkdir(NodeId.Root, "md"));
            trace.Expect("mknod", "mknodat openat2 statx", () => guest.Mknod(NodeId.Root, "mn", 0x81a4));
            trace.Expect("symlink", "symlinkat openat2 statx", () => guest.Symlink(NodeId.Root, "sl", "t"));
            FuseCreateOut made = default;
            trace.Expect("create", "openat2 statx open_tree", () => made = guest.Create(NodeId.Root, "c").Value);
            trace.Expect("release of it", "close", () => guest.Release(made.Entry.NodeId, made.Open.Handle));
            trace.Expect("rename over it", "renameat2", () => guest.Rename(NodeId.Root, "mn", NodeId.Root, "c"));
            trace.Expect("unlink", "unlinkat", () => guest.Unlink(NodeId.Root, "c"));
            trace.Expect("rmdir", "unlinkat", () => guest.Rmdir(NodeId.Root, "md"));
            ReadDirPlus(trace, guest, host, "openat2 statx", "statx", "statx");
        });

    [Fact]
    public void Objects_that_come_and_go_take_no_descriptor_from_those_that_stay() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            List<NodeId> files = [.. Enumerable.Range(0, 20).Select(
                number => Guest.Good(guest.Mknod(NodeId.Root, $"stays{number}", 0x81a4)).NodeId)];
            for (int i = 0; i < 1000; i++)
            {
                NodeId passing = Guest.Good(guest.Mknod(NodeId.Root, "passing", 0x81a4)).NodeId;
                Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "passing"));
                guest.Forget(passing);
            }

            guest.FileSystem.Settle();
            for (int i = 0; i < files.Count; i++)
            {
                NodeId file = files[i];
                trace.Expect("getattr of one that stays", "statx", () => guest.GetAttr(file));
                trace.Expect("unlink of it", "unlinkat", () => guest.Unlink(NodeId.Root, $"stays{i}"));
                guest.Forget(file);
            }
        },
        change: options => options with { MaxDescriptors = 256 });

    [Fact]
    public void Creating_for_another_user_costs_calls_only_when_the_user_changes() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            const string make = "mkdirat openat2 statx";
            guest.As(1000, 1000);
            trace.Expect("first", $"setresgid setresuid {make}", () => guest.Mkdir(NodeId.Root, "a"));
            trace.Expect("same", make, () => guest.Mkdir(NodeId.Root, "b"));
            guest.As(1001, 1000);
            trace.Expect("other user", $"setresuid {make}", () => guest.Mkdir(NodeId.Root, "c"));
            guest.As(1001, 1000, 4);
            trace.Expect("with a group", $"setgroups {make}", () => guest.Mkdir(NodeId.Root, "e"));
            trace.Expect("same group", make, () => guest.Mkdir(NodeId.Root, "g"));
            guest.As(0, 0);
            trace.Expect("root", $"setgroups setresgid setresuid {make}", () => guest.Mkdir(NodeId.Root, "h"));
            trace.Expect("root again", make, () => guest.Mkdir(NodeId.Root, "i"));
        });

    [Fact]
    public void Reopening_a_file_costs_at_most_a_look_that_saves_the_guest_its_reads() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            NodeId file = guest.Walk("f").NodeId;
            HandleId handle = default;
            trace.Expect("first open", "open_by_handle_at", () => handle = guest.Open(file).Value.Handle);
            trace.Expect("release", "", () => guest.Release(file, handle));
            trace.Expect("next open, nothing read", "", () => handle = guest.Open(file).Value.Handle);
            trace.Expect("read", "pread64", () => guest.Read(file, handle, 0, 4096));
            trace.Expect("release", "", () => guest.Release(file, handle));
            trace.Expect("next open", "statx", () => handle = guest.Open(file).Value.Handle);
            HandleId second = default;
            trace.Expect("a second one", "open_by_handle_at", () => second = guest.Open(file).Value.Handle);
            trace.Expect("release", "", () => guest.Release(file, handle));
            trace.Expect("release of the second", "close", () => guest.Release(file, second));
            trace.Expect("open to write", "open_by_handle_at", () => handle = guest.Open(file, OpenFlags.ReadWrite).Value.Handle);
            trace.Expect("release", "close", () => guest.Release(file, handle));
            trace.Expect("open", "", () => handle = guest.Open(file).Value.Handle);
            trace.Expect("flock", "flock", () => Lock(guest, file, handle, FuseLockFlags.Flock));
            trace.Expect("release of a locked one", "close", () => guest.Release(file, handle));
        },
        CacheMode.Auto);

    [Fact]
    public void Writes_that_clear_setuid_change_capabilities_only_when_they_differ() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            NodeId file = guest.Walk("f").NodeId;
            HandleId handle = guest.Open(file, OpenFlags.ReadWrite).Value.Handle;
            const FuseWriteFlags kill = FuseWriteFlags.KillSuidGid;
            trace.Expect("first", "capset pwrite64", () => guest.Write(file, handle, 0, "x"u8, 0, kill));
            trace.Expect("same", "pwrite64", () => guest.Write(file, handle, 0, "x"u8, 0, kill));
            trace.Expect("without", "capset pwrite64", () => guest.Write(file, handle, 0, "x"u8));
            trace.Expect("without again", "pwrite64", () => guest.Write(file, handle, 0, "x"u8));
            Assert.Equal(Errno.Success, guest.Release(file, handle));
        });

    [Fact]
    public void Translated_ids_and_mapped_names_cost_no_calls_and_labels_the_fewest() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            NodeId file = guest.Walk("f").NodeId;
            NodeId directory = guest.Walk("d").NodeId;
            _ = guest.GetAttr(file);
            _ = guest.GetAttr(directory);
            HandleId handle = guest.Open(file, OpenFlags.ReadWrite).Value.Handle;
            // The first round has left the thread with the user's ids.
            _ = guest.As(0, 0).Mkdir(directory, "roots");
            guest.As(1000, 1000);
            const string make = "mkdirat openat2 statx";
            trace.Expect("mkdir", $"setresgid setresuid {make}", () => guest.Mkdir(directory, "a"));
            trace.Expect("mkdir again", make, () => guest.Mkdir(directory, "b"));
            trace.Expect("getattr", "statx", () => guest.GetAttr(file));
            trace.Expect("chown", "removexattr fchownat statx", () => guest.SetAttr(file, s_owner));
            trace.Expect("write", "removexattr pwrite64", () => guest.Write(file, handle, 0, "x"u8));
            trace.Expect("read", "pread64", () => guest.Read(file, handle, 0, 1));
            trace.Expect("setxattr", "setxattr", () => guest.SetXattr(file, "user.a", "x"u8));
            trace.Expect("getxattr", "getxattr", () => guest.FileSystem.GetXattrAsync(
                file, Guest.Terminated("user.a"), new byte[3], guest.Context));
            trace.Expect("listxattr", "listxattr", () => guest.FileSystem.ListXattrAsync(
                file, new byte[100], guest.Context));
            guest.Labelled("security.label", "x");
            trace.Expect("labelled mkdir", "mkdirat openat2 statx setxattr statx",
                () => guest.Mkdir(directory, "c"));
            FuseCreateOut made = default;
            trace.Expect("labelled create", "openat2 statx setxattr statx open_tree",
                () => made = guest.Create(directory, "e").Value);
            Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
            Assert.Equal(Errno.Success, guest.Release(file, handle));
        },
        change: options => options with
        {
            SecurityLabel = NegotiationMode.Always,
            XattrMap = XattrMap.Parse(":map::user.virtiofs.:"),
            UserIds = IdTranslation.Parse(["map:1000:2000:10"]),
            GroupIds = IdTranslation.Parse(["map:1000:2000:10"]),
        });

    // The new name is looked up where the one before was not free.
    [Fact]
    public void With_a_version_table_that_is_looked_at_names_are_looked_up_that_may_be_taken_away() => Run(
        InodeFileHandles.Never,
        (trace, guest, host) =>
        {
            foreach (string name in (ReadOnlySpan<string>)["v", "w", "x", "y"])
            {
                File.WriteAllText(host[name], name);
            }

            trace.Expect("unlink", "statx unlinkat", () => guest.Unlink(NodeId.Root, "v"));
            trace.Expect("rename to a free name", "statx renameat2", () => guest.Rename(NodeId.Root, "f", NodeId.Root, "g"));
            trace.Expect("another", "renameat2", () => guest.Rename(NodeId.Root, "g", NodeId.Root, "f"));
            trace.Expect("rename over a file", "statx renameat2 statx statx renameat2",
                () => guest.Rename(NodeId.Root, "w", NodeId.Root, "x"));
            trace.Expect("another", "statx renameat2", () => guest.Rename(NodeId.Root, "x", NodeId.Root, "y"));
            trace.Expect("to a free name again", "statx renameat2", () => guest.Rename(NodeId.Root, "y", NodeId.Root, "z"));
            trace.Expect("and again", "renameat2", () => guest.Rename(NodeId.Root, "z", NodeId.Root, "y"));
            trace.Expect("exchange", "renameat2",
                () => guest.Rename(NodeId.Root, "y", NodeId.Root, "f", RenameFlags.Exchange));
            trace.Expect("unlink what was exchanged last", "unlinkat", () => guest.Unlink(NodeId.Root, "f"));
            trace.Expect("and the other", "statx unlinkat", () => guest.Unlink(NodeId.Root, "y"));

            string tooLong = new('n', 200);
            foreach ((string name, string calls) in (ReadOnlySpan<(string, string)>)[("n", "unlinkat"), (tooLong, "statx unlinkat")])
            {
                NodeId made = Guest.Good(guest.Create(NodeId.Root, name)).Entry.NodeId;
                Guest.Good(guest.Link(made, NodeId.Root, $"link{name.Length}"));
                trace.Expect("unlink what was created", calls, () => guest.Unlink(NodeId.Root, name));
            }

            trace.Expect("unlink what was linked", "unlinkat", () => guest.Unlink(NodeId.Root, "link1"));
            Guest.Good(guest.Mkdir(NodeId.Root, "directory"));
            trace.Expect("rmdir", "unlinkat", () => guest.Rmdir(NodeId.Root, "directory"));
        },
        change: options => options with { VersionTable = VersionTableLayout.Default });

    [Fact]
    public void Where_the_host_changes_names_too_all_are_looked_up_that_are_taken_away() => Run(
        InodeFileHandles.Never,
        (trace, guest, host) =>
        {
            Guest.Good(guest.Create(NodeId.Root, "n"));
            trace.Expect("rename", "statx renameat2", () => guest.Rename(NodeId.Root, "n", NodeId.Root, "m"));
            trace.Expect("unlink", "statx unlinkat", () => guest.Unlink(NodeId.Root, "m"));
        },
        change: options => options with { VersionTable = VersionTableLayout.Default, HostWatching = HostWatching.Inotify });

    [Fact]
    public void With_access_control_lists_the_umask_is_changed_only_when_it_differs() => Run(
        InodeFileHandles.Prefer,
        (trace, guest, host) =>
        {
            const string make = "mkdirat openat2 statx";
            trace.Expect("first", $"umask {make}", () => guest.Mkdir(NodeId.Root, "a", 0x1ff, umask: 0x12));
            trace.Expect("same", make, () => guest.Mkdir(NodeId.Root, "b", 0x1ff, umask: 0x12));
            trace.Expect("other", $"umask {make}", () => guest.Mkdir(NodeId.Root, "c", 0x1ff, umask: 0x3f));
            trace.Expect("none", $"umask {make}", () => guest.Mkdir(NodeId.Root, "e", 0x1ff));
        },
        change: options => options with { PosixAcl = NegotiationMode.Always });

    private static void Lock(Guest guest, NodeId file, HandleId handle, FuseLockFlags flags) => Assert.Equal(
        Errno.Success,
        Guest.Done(guest.FileSystem.SetLockAsync(
            file,
            new FuseLkIn { Handle = handle, End = 9, Type = FuseLockType.Write, Flags = flags },
            mayWait: true,
            guest.Context)));

    private static void Common(
        SystemCallTrace trace, Guest guest, NodeId file, NodeId directory, NodeId link, string open)
    {
        HandleId handle = default;
        trace.Expect("open", open, () => handle = guest.Open(file, OpenFlags.ReadWrite).Value.Handle);
        trace.Expect("getattr by fh", "statx", () => guest.GetAttr(file, handle));
        trace.Expect("read", "pread64", () => guest.Read(file, handle, 0, 4096));
        trace.Expect("read across the end", "pread64", () => guest.Read(file, handle, 6000, 4096));
        trace.Expect("write", "pwrite64", () => guest.Write(file, handle, 0, new byte[4096]));
        trace.Expect("flush", "", () => guest.Flush(file, handle));
        trace.Expect("a process's first lock of a file", "openat fcntl", () => Lock(guest, file, handle, default));
        trace.Expect("lock", "fcntl", () => Lock(guest, file, handle, default));
        trace.Expect("flock", "flock", () => Lock(guest, file, handle, FuseLockFlags.Flock));
        trace.Expect("flush with locks", "close", () => guest.Flush(file, handle));
        trace.Expect("fsync", "fsync", () => guest.Fsync(file, handle));
        trace.Expect("fdatasync", "fdatasync", () => guest.Fsync(file, handle, FuseFsyncFlags.DataOnly));
        trace.Expect("lseek", "lseek", () => guest.FileSystem.LseekAsync(
            file, new FuseLseekIn { Handle = handle, Whence = 4 }, guest.Context));
        trace.Expect("fallocate", "capset fallocate", () => guest.FileSystem.FallocateAsync(
            file, new FuseFallocateIn { Handle = handle, Length = 4096 }, guest.Context));
        trace.Expect("copy_file_range", "copy_file_range", () => guest.FileSystem.CopyFileRangeAsync(
            file,
            new FuseCopyFileRangeIn
            {
                SourceHandle = handle,
                DestinationNode = file,
                DestinationHandle = handle,
                DestinationOffset = 4096,
                Length = 4096,
            },
            guest.Context));
        trace.Expect("release", "close", () => guest.Release(file, handle));
        trace.Expect("statfs", "fstatfs", () => guest.FileSystem.StatfsAsync(file, guest.Context));
        trace.Expect("statx", "statx", () => guest.FileSystem.StatxAsync(file, default, guest.Context));
        trace.Expect("readlink", "readlinkat", () => ReadLink(guest, link));
        bool isOld = Files.Fchmodat2(-1, 0).Error == Errno.ENOSYS;
        // The thread has its capability back, which allocating and copying took.
        trace.Expect(
            "chmod", isOld ? "capset fchmodat2 fchmodat statx" : "capset fchmodat2 statx", () => guest.SetAttr(file, s_mode));
        trace.Expect("chown", "fchownat statx", () => guest.SetAttr(file, s_owner));
        trace.Expect("truncate", "truncate statx", () => guest.SetAttr(file, s_size));
        trace.Expect("utimes", "utimensat statx", () => guest.SetAttr(file, s_time));
        trace.Expect("setxattr", "setxattr", () => guest.FileSystem.SetXattrAsync(
            file, Guest.Terminated("user.a"), new byte[3], default, guest.Context));
        trace.Expect("getxattr", "getxattr", () => guest.FileSystem.GetXattrAsync(
            file, Guest.Terminated("user.a"), new byte[3], guest.Context));
        trace.Expect("listxattr", "listxattr", () => guest.FileSystem.ListXattrAsync(
            file, new byte[100], guest.Context));
        trace.Expect("removexattr", "removexattr", () => guest.FileSystem.RemoveXattrAsync(
            file, Guest.Terminated("user.a"), guest.Context));
        trace.Expect("syncfs", "syncfs", () => guest.FileSystem.SyncFsAsync(NodeId.Root, guest.Context));
        trace.Expect("link", "linkat statx", () => guest.Link(file, directory, "linked"));
        trace.Expect("forget", "", () => guest.Forget(file));
        trace.Expect("opendir", open, () => handle = guest.OpenDir(directory).Value.Handle);
        trace.Expect("readdir", "getdents64", () => guest.ReadDir(directory, handle, 0, 64));
        ulong next = guest.ReadDir(directory, handle, 0, 64).Value[^1].Offset;
        trace.Expect("readdir, leftover", "", () => guest.ReadDir(directory, handle, next, 32));
        trace.Expect("releasedir", "close", () => guest.ReleaseDir(directory, handle));
    }

    private static void ReadDirPlus(
        SystemCallTrace trace, Guest guest, HostDirectory host, string perNew, string perKnown, string perKnownAgain)
    {
        const int files = 5;
        Directory.CreateDirectory(host["many"]);
        for (int i = 0; i < files; i++)
        {
            File.WriteAllText(host[$"many/{i}"], "");
        }

        NodeId many = guest.Walk("many").NodeId;
        HandleId handle = Guest.Good(guest.OpenDir(many)).Handle;
        string Times(string calls) => string.Join(' ', Enumerable.Repeat(calls, files));
        trace.Expect("readdirplus new", $"getdents64 {Times(perNew)}", () => List(guest, many, handle));
        trace.Expect("readdirplus known", $"lseek getdents64 {Times(perKnown)}", () => List(guest, many, handle));
        trace.Expect("readdirplus seen", $"lseek getdents64 {Times(perKnownAgain)}", () => List(guest, many, handle));
        trace.Expect("readdirplus pinned", $"lseek getdents64 {Times("statx")}", () => List(guest, many, handle));
        trace.Expect("readdir", "lseek getdents64", () => guest.ReadDir(many, handle, 0, 4096));
        Assert.Equal(Errno.Success, guest.ReleaseDir(many, handle));
    }

    private static void Forget(Guest guest, List<Listed> entries)
    {
        foreach (Listed entry in entries.Where(entry => entry.Entry.NodeId != NodeId.None))
        {
            guest.Forget(entry.Entry.NodeId);
        }
    }

    private static void List(Guest guest, NodeId node, HandleId handle) =>
        Assert.Equal(7, Guest.Good(guest.ReadDir(node, handle, 0, 1 << 14, isPlus: true)).Count);

    private static void ReadLink(Guest guest, NodeId link) =>
        Assert.Equal(1, Guest.Good(Guest.Done(guest.FileSystem.ReadLinkAsync(link, new byte[10], guest.Context))));

    // Everything runs twice: once to be compiled, then traced in a directory that is just as new.
    private static void Run(
        InodeFileHandles handles,
        Action<SystemCallTrace, Guest, HostDirectory> body,
        CacheMode cache = CacheMode.Never,
        Func<PassthroughOptions, PassthroughOptions>? change = null)
    {
        SystemCallTrace.Require();
        Worker.Run(() =>
        {
            for (int round = 0; round < 2; round++)
            {
                using HostDirectory host = new HostDirectory("/var/tmp").Fill();
                PassthroughOptions options = host.Options with
                {
                    FileHandles = handles,
                    Cache = cache,
                    Xattr = true,
                    KillPrivV2 = true,
                    Clock = TestClock.Stopped,
                };
                using var guest = new Guest(change is null ? options : change(options));
                _ = guest.GetAttr(NodeId.Root);
                using var trace = new SystemCallTrace();
                body(trace, guest, host);
                if (round == 1)
                {
                    trace.Verify();
                }
            }
        });
    }
}
