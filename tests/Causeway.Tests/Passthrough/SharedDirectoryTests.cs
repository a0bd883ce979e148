using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>What others do with the same directory at the same time; and cases of passthrough.md 7.5 to 7.9 on one object.</summary>
public sealed class SharedDirectoryTests
{
    [Fact]
    public void Two_daemons_append_to_one_file_and_no_record_is_lost() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        using var one = new Guest(host.Options);
        using var other = new Guest(host.Options);
        const int records = 500;
        Worker.RunAll(2, i =>
        {
            Guest guest = i == 0 ? one : other;
            NodeId file = guest.Walk("d/x").NodeId;
            HandleId handle = Guest.Good(guest.Open(file, OpenFlags.WriteOnly | OpenFlags.Append)).Handle;
            for (int record = 0; record < records; record++)
            {
                // The offset is what a guest believes the end to be: wrong, as soon as the other has written.
                byte[] line = Encoding.ASCII.GetBytes($"{i}:{record:d4}\n");
                Assert.Equal(line.Length, Guest.Good(guest.Write(file, handle, 1, line, OpenFlags.Append)));
            }

            Assert.Equal(Errno.Success, guest.Release(file, handle));
        });

        string[] lines = File.ReadAllText(host["d/x"])[1..].Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2 * records, lines.Distinct().Count());
        Assert.Equal(2 * records, lines.Length);
    });

    [Theory, EveryMode]
    public void A_directory_that_changes_while_it_is_listed_gives_no_name_twice_and_each_that_stays(
        InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        for (int i = 0; i < 300; i++)
        {
            File.WriteAllText(host[$"stays-{i:d3}"], "");
        }

        using var guest = new Guest(host.Options with { FileHandles = handles });
        HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        var names = new List<string>();
        ulong offset = 0;
        for (int turn = 0; ; turn++)
        {
            List<Listed> some = Guest.Good(guest.ReadDir(NodeId.Root, handle, offset, 1000, isPlus: turn % 2 == 1));
            if (some.Count == 0)
            {
                break;
            }

            names.AddRange(some.Select(entry => entry.Name));
            offset = some[^1].Offset;
            if (turn < 100)
            {
                File.WriteAllText(host[$"comes-{turn}"], "");
                File.Delete(host[$"comes-{turn - 1}"]);
            }
        }

        string[] stayed = [.. names.Where(name => name.StartsWith("stays", StringComparison.Ordinal)).Order()];
        Assert.Equal(Enumerable.Range(0, 300).Select(i => $"stays-{i:d3}"), stayed);
        Assert.Equal(names.Count, names.Distinct().Count());
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
    });

    [Theory, EveryMode]
    public void Create_on_a_directory_is_refused_for_reading_too(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        foreach (int access in new[] { OpenFlags.ReadOnly, OpenFlags.WriteOnly, OpenFlags.ReadWrite })
        {
            Assert.Equal(Errno.EISDIR, guest.Create(NodeId.Root, "d", access).Error);
            Assert.Equal(Errno.EEXIST, guest.Create(NodeId.Root, "d", access | OpenFlags.Exclusive).Error);
        }

        Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
    });

    [Theory, EveryMode]
    public void A_link_that_leads_out_of_the_share_is_no_way_to_create(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            NodeId directory = guest.Walk("d").NodeId;
            for (int i = 0; i < 50; i++)
            {
                Assert.Equal(Errno.ELOOP, guest.Create(directory, "esc", OpenFlags.WriteOnly | OpenFlags.Truncate).Error);
            }

            Assert.Equal("outside", File.ReadAllText(host.Outside));
            Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
        });

    [Theory, EveryMode]
    public void Flush_and_fsync_are_done_on_open_files_and_directories(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            NodeId file = guest.Walk("f").NodeId;
            HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
            Assert.Equal(Errno.Success, guest.Flush(file, handle));
            Assert.Equal(Errno.Success, guest.Fsync(file, handle));
            Assert.Equal(Errno.Success, guest.Fsync(file, handle, FuseFsyncFlags.DataOnly));
            Assert.Equal(Errno.Success, guest.Release(file, handle));
            Assert.Equal(Errno.EBADF, guest.Fsync(file, handle));

            NodeId directory = guest.Walk("d").NodeId;
            HandleId listing = Guest.Good(guest.OpenDir(directory)).Handle;
            Assert.Equal(Errno.Success, FsyncDir(listing));
            Assert.Equal(Errno.Success, guest.ReleaseDir(directory, listing));
            Assert.Equal(Errno.EBADF, FsyncDir(listing));

            Errno FsyncDir(HandleId opened) => Guest.Done(guest.FileSystem.FsyncDirAsync(
                directory, new FuseFsyncIn { Handle = opened }, guest.Context));
        });

    [Fact]
    public void Whether_a_caller_may_write_a_directory_is_for_the_guests_kernel_to_say() => Worker.Run(() =>
    {
        // It checks before it sends (default_permissions); the daemon keeps its own rights and only passes the ownership on.
        using HostDirectory host = new HostDirectory().Fill();
        Host.Run("chmod", "0755", host["d"]);
        using var guest = new Guest(host.Options);
        NodeEntry made = Guest.Good(guest.As(1000, 1000).Mkdir(guest.Walk("d").NodeId, "made"));
        Assert.Equal((1000U, 1000U), (made.Attributes.UserId, made.Attributes.GroupId));
    });
}
