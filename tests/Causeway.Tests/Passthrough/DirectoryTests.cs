using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.9.</summary>
public sealed class DirectoryTests
{
    [Theory, EveryMode]
    public void Every_name_is_listed_once(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        for (int i = 0; i < 2000; i++)
        {
            File.WriteAllText(host[$"name-{i:d4}-{new string('x', i % 200)}"], "");
        }

        using var guest = new Guest(host.Options with { FileHandles = handles });
        HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        string[] expected = [.. Directory.GetFiles(host.Path).Select(Path.GetFileName).Append(".").Append("..").Order()!];
        Assert.Equal(expected, guest.ReadAll(NodeId.Root, handle, 4096).Select(entry => entry.Name).Order());
        Assert.Equal(expected, guest.ReadAll(NodeId.Root, handle, 100_000).Select(entry => entry.Name).Order());

        List<Listed> plus = guest.ReadAll(NodeId.Root, handle, 4096, isPlus: true);
        Assert.Equal(expected, plus.Select(entry => entry.Name).Order());
        Assert.All(plus, entry => Assert.Equal(entry.Name is "." or "..", entry.Entry.NodeId == NodeId.None));
        Assert.Equal(2000, guest.FileSystem.Figures.Nodes);
        foreach (Listed entry in plus.Where(entry => entry.Entry.NodeId != NodeId.None))
        {
            guest.Forget(entry.Entry.NodeId);
        }

        guest.FileSystem.Settle();
        Assert.Equal(0, guest.FileSystem.Figures.Nodes);
        Assert.Equal(1, guest.FileSystem.Figures.Descriptors);
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
    });

    [Theory, EveryMode]
    public void A_listing_with_attributes_counts_only_what_fits(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        for (int i = 0; i < 100; i++)
        {
            File.WriteAllText(host[$"file-{i:d2}"], "");
        }

        using var guest = new Guest(host.Options with { FileHandles = handles });
        HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        List<Listed> listed = Guest.Good(guest.ReadDir(NodeId.Root, handle, 0, 4096, isPlus: true));
        Assert.InRange(listed.Count, 1, 25);
        Assert.Equal(listed.Count(entry => entry.Entry.NodeId != NodeId.None), guest.FileSystem.Figures.Nodes);
        Assert.All(
            listed.Where(entry => entry.Entry.NodeId != NodeId.None),
            entry => Assert.Equal(entry.Entry.NodeId, guest.Walk(entry.Name).NodeId));

        Assert.Empty(Guest.Good(guest.ReadDir(NodeId.Root, handle, 0, 0)));
        Assert.Equal(Errno.EINVAL, guest.ReadDir(NodeId.Root, handle, 0, 10).Error);
        Assert.Equal(Errno.EINVAL, guest.ReadDir(NodeId.Root, handle, 0, 128, isPlus: true).Error);
        Assert.InRange(Guest.Good(guest.ReadDir(NodeId.Root, handle, 0, 4096, isPlus: true)).Count, 1, 25);
        Assert.Equal(102, guest.ReadAll(NodeId.Root, handle, 4096, isPlus: true).Count);
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
    });

    [Theory, EveryMode]
    public void The_root_does_not_tell_what_is_above_it(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        ulong root = Guest.Good(guest.GetAttr(NodeId.Root)).Attributes.Inode;
        foreach (bool isPlus in new[] { false, true })
        {
            List<Listed> listed = guest.ReadAll(NodeId.Root, handle, isPlus: isPlus);
            Assert.Equal(root, listed.Single(entry => entry.Name == "..").Inode);
            Assert.Equal(root, listed.Single(entry => entry.Name == ".").Inode);
            Assert.Equal(4U, listed.Single(entry => entry.Name == "..").Type);
            Assert.Equal(10U, listed.Single(entry => entry.Name == "ln").Type);
        }

        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
    });

    [Theory, EveryMode]
    public void Invented_cookies_do_no_harm(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        foreach (ulong cookie in new ulong[] { 12345, 1UL << 63, ulong.MaxValue, (ulong)long.MaxValue, 1 })
        {
            _ = guest.ReadDir(NodeId.Root, handle, cookie, 4096, isPlus: true);
            Assert.Equal(8, guest.ReadAll(NodeId.Root, handle).Count);
        }

        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
        NodeId file = guest.Walk("f").NodeId;
        handle = Guest.Good(guest.Open(file)).Handle;
        Assert.Equal(Errno.ENOTDIR, guest.ReadDir(file, handle).Error);
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Theory, EveryMode]
    public void An_entry_that_vanishes_is_left_out(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        for (int i = 0; i < 50; i++)
        {
            File.WriteAllText(host[$"file-{i:d2}"], "");
        }

        using var guest = new Guest(host.Options with { FileHandles = handles });
        HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        // The first request fetches all entries from the host; what did not fit is kept for the second.
        List<Listed> first = Guest.Good(guest.ReadDir(NodeId.Root, handle, 0, 1000, isPlus: true));
        string[] gone = [.. Directory.GetFiles(host.Path).Select(Path.GetFileName)
            .Except(first.Select(entry => entry.Name)).Order().Take(20)!];
        foreach (string name in gone)
        {
            File.Delete(host[name]);
        }

        List<Listed> second = Guest.Good(
            guest.ReadDir(NodeId.Root, handle, first[^1].Offset, 1 << 16, isPlus: true));
        Assert.Empty(second.Select(entry => entry.Name).Intersect(gone));
        Assert.Equal(52 - 20, first.Count + second.Count);

        foreach (string path in Directory.GetFiles(host.Path))
        {
            File.Delete(path);
        }

        _ = Guest.Good(guest.ReadDir(NodeId.Root, handle, 0, 80));
        Assert.Empty(Guest.Good(guest.ReadDir(NodeId.Root, handle, second[^1].Offset, 4096, isPlus: true)));
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
    });

    [Theory, EveryMode]
    public void Two_threads_on_one_handle_each_continue_where_they_were(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place);
            for (int i = 0; i < 500; i++)
            {
                File.WriteAllText(host[$"file-{i:d3}"], "");
            }

            using var guest = new Guest(host.Options with { FileHandles = handles });
            HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
            Worker.RunAll(4, thread =>
            {
                var names = new List<string>();
                ulong offset = 0;
                while (true)
                {
                    byte[] reply = new byte[600 + (thread * 300)];
                    var writer = new DirectoryWriter();
                    writer.Reset(reply, isPlus: thread % 2 == 1);
                    Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.ReadDirAsync(
                        NodeId.Root,
                        new FuseReadIn { Handle = handle, Offset = offset, Size = (uint)reply.Length },
                        writer,
                        new RequestContext())));
                    List<Listed> some = Listed.Decode(reply.AsSpan(0, writer.Length), writer.IsPlus);
                    if (some.Count == 0)
                    {
                        break;
                    }

                    names.AddRange(some.Select(entry => entry.Name));
                    offset = some[^1].Offset;
                }

                Assert.Equal(502, names.Count);
                Assert.Equal(502, names.Distinct().Count());
            });
            Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
        });

    [Theory, EveryMode]
    public void Names_of_any_bytes_and_the_greatest_length_are_listed(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place);
            using var guest = new Guest(host.Options with { FileHandles = handles });
            string[] names = [new string('\xfe', 255), "\xc3\xa4", "\xff", "\n\t", new string('a', 254)];
            foreach (string name in names)
            {
                Guest.Good(guest.Mkdir(NodeId.Root, name));
            }

            HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
            foreach (bool isPlus in new[] { false, true })
            {
                Assert.Equal(
                    names.Order(),
                    guest.ReadAll(NodeId.Root, handle, isPlus: isPlus)
                        .Select(entry => entry.Name).Where(name => name[0] != '.').Order());
            }

            Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
        });
}
