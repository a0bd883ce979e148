using CsCheck;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Coherency;

/// <summary>
/// The version table as the passthrough keeps it: what a guest keeps with its versions is the truth as long as these are current,
/// whatever other guests of the share do.
/// </summary>
public class SessionVersionsTests
{
    private static readonly string[] s_names = ["a", "b", "c"];

    private enum Step
    {
        Create,
        Mkdir,
        Symlink,
        Link,
        Unlink,
        Rmdir,
        Rename,
        Exchange,
        Write,
        Truncate,
        OpenTruncated,
        Chmod,
        SetXattr,
        RemoveXattr,
        Allocate,
    }

    [Fact]
    public void What_is_kept_and_current_is_true_after_every_change() => Worker.Run(() =>
        Gen.Select(Gen.Enum<Step>(), Gen.Int[0, 8], Gen.Int[0, 8]).Array[1, 40].Sample(
            program => Play(program, VersionTableLayout.Default), iter: 150, threads: 1));

    [Fact]
    public void With_too_few_words_more_is_asked_and_nothing_is_wrong() => Worker.Run(() =>
        Gen.Select(Gen.Enum<Step>(), Gen.Int[0, 8], Gen.Int[0, 8]).Array[1, 40].Sample(
            program => Play(program, new VersionTableLayout(4, 4, 2, 16)), iter: 100, threads: 1));

    [Fact]
    public void An_object_that_nobody_changes_stays_current() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, VersionTableLayout.Default);
        using Guest changer = Guest.On(share);
        using Guest keeper = Guest.On(share);
        File.WriteAllText(host["still"], "still");
        NodeId still = Guest.Good(keeper.Lookup(NodeId.Root, "still")).NodeId;
        Kept attributes = Kept.Attributes(keeper, still);
        NodeId changed = Guest.Good(changer.Create(NodeId.Root, "other")).Entry.NodeId;
        Guest.Good(changer.SetAttr(changed, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x180 }));
        Assert.Equal(Errno.Success, changer.Unlink(NodeId.Root, "other"));
        Assert.True(attributes.IsCurrent(share.Versions!.Table));

        // And its name, although its word may be another name's as well: the directory has changed, so only one proof is left.
        Kept name = Kept.Name(keeper, NodeId.Root, "still");
        Assert.True(name.IsCurrent(share.Versions.Table));
        Guest.Good(changer.Create(NodeId.Root, "another"));
        uint word = share.Versions.Table.WordOfName(RootInode(host), "another"u8);
        Assert.Equal(word != name.Proofs[0].Word, name.IsCurrent(share.Versions.Table));
    });

    [Theory]
    [InlineData("chmod", true, false)]
    [InlineData("write", true, true)]
    [InlineData("truncate", true, true)]
    [InlineData("xattr", true, false)]
    [InlineData("link", true, false)]
    [InlineData("unlink", true, false)]
    [InlineData("rename", true, false)]
    [InlineData("read", false, false)]
    [InlineData("open", false, false)]
    public void A_change_moves_the_words_it_affects_and_no_others(string change, bool movesMetadata, bool movesContent) =>
        Worker.Run(() =>
        {
            using var host = new HostDirectory();
            using Share share = Open(host, VersionTableLayout.Default);
            using Guest guest = Guest.On(share);
            VersionTable table = share.Versions!.Table;
            File.WriteAllText(host["f"], "content");
            NodeId node = Guest.Good(guest.Versioned().Lookup(NodeId.Root, "f")).NodeId;
            uint word = guest.Context.Versions.InodeWord;
            HandleId handle = Guest.Good(guest.Open(node, OpenFlags.ReadWrite)).Handle;
            (ulong metadata, ulong content) = (table.Read(word), table.Read(word + 1));
            switch (change)
            {
                case "chmod":
                    Guest.Good(guest.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x180 }));
                    break;
                case "write":
                    Guest.Good(guest.Write(node, handle, 0, "x"u8));
                    break;
                case "truncate":
                    Guest.Good(guest.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = 3 }));
                    break;
                case "xattr":
                    Assert.Equal(Errno.Success, guest.SetXattr(node, "user.test", "1"u8));
                    break;
                case "link":
                    Guest.Good(guest.Link(node, NodeId.Root, "g"));
                    break;
                case "unlink":
                    Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));
                    break;
                case "rename":
                    Assert.Equal(Errno.Success, guest.Rename(NodeId.Root, "f", NodeId.Root, "g"));
                    break;
                case "read":
                    Guest.Good(guest.Read(node, handle, 0, 4096));
                    break;
                default:
                    Guest.Good(guest.Open(node));
                    break;
            }

            Assert.Equal(metadata + (movesMetadata ? VersionWord.Step : 0), table.Read(word));
            Assert.Equal(content + (movesContent ? VersionWord.Step : 0), table.Read(word + 1));
        });

    // It is tried without a look at the new name first where the last rename found a free one.
    [Fact]
    public void What_a_rename_replaces_is_counted_whether_the_last_one_replaced_anything_or_not() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, VersionTableLayout.Default);
        using Guest guest = Guest.On(share);
        VersionTable table = share.Versions!.Table;
        foreach (bool isFirstFree in (ReadOnlySpan<bool>)[true, false, false, true, true])
        {
            foreach (string name in (ReadOnlySpan<string>)["a", "b", "c"])
            {
                File.WriteAllText(host[name], name);
            }

            Assert.Equal(Errno.Success, guest.Rename(NodeId.Root, "a", NodeId.Root, isFirstFree ? "free" : "b"));
            NodeId replaced = Guest.Good(guest.Versioned().Lookup(NodeId.Root, "c")).NodeId;
            FuseVersionTags tags = guest.Context.Versions;
            Guest.Good(guest.Link(replaced, NodeId.Root, "kept"));
            Kept kept = Kept.Attributes(guest, replaced);
            ulong before = table.Read(tags.NameWord);
            Assert.True(kept.IsCurrent(table));
            Assert.Equal(Errno.Success, guest.Rename(NodeId.Root, isFirstFree ? "free" : "b", NodeId.Root, "c"));
            Assert.False(kept.IsCurrent(table));

            // Once, although it was begun twice, perhaps; nothing is left in flight.
            Assert.Equal(before + VersionWord.Step, table.Read(tags.NameWord));
            Assert.True(Kept.Attributes(guest, replaced).IsCurrent(table));
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "kept"));
        }
    });

    [Fact]
    public void Who_changes_an_object_alone_is_told_the_version_it_has_since() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, VersionTableLayout.Default);
        using Guest guest = Guest.On(share);
        VersionTable table = share.Versions!.Table;
        FuseCreateOut created = Guest.Good(guest.Versioned().Create(NodeId.Root, "f"));
        FuseVersionTags made = guest.Context.Versions;
        Assert.Equal(table.Read(made.NameWord), made.Name);
        Assert.Equal(table.Read(made.InodeWord), made.Metadata);
        Assert.Equal(table.Read(made.DirectoryWord + 1), made.DirectoryContent);
        Guest.Good(guest.Versioned().Write(created.Entry.NodeId, created.Open.Handle, 0, "x"u8));
        FuseVersionTags written = guest.Context.Versions;
        Assert.Equal(made.Metadata, written.MetadataBefore);
        Assert.Equal(made.Content, written.ContentBefore);
        Assert.Equal(table.Read(made.InodeWord), written.Metadata);
        Assert.Equal(table.Read(made.InodeWord + 1), written.Content);
    });

    [Theory]
    [InlineData("write")]
    [InlineData("unlink")]
    [InlineData("create")]
    public void While_no_guest_looks_a_change_is_counted_once_and_for_everything(string change) => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, VersionTableLayout.Default);
        using Guest guest = Guest.On(share);
        VersionTable table = share.Versions!.Table;
        FuseCreateOut file = Guest.Good(guest.Versioned().Create(NodeId.Root, "f"));
        Kept kept = Kept.Attributes(guest, file.Entry.NodeId);
        Kept name = Kept.Name(guest, NodeId.Root, "f");
        uint word = kept.Proofs[0].Word;
        ulong metadata = table.Read(word);
        Assert.True(kept.IsCurrent(table) && name.IsCurrent(table));
        guest.LooksAtTable = false;
        _ = change switch
        {
            "write" => guest.Write(file.Entry.NodeId, file.Open.Handle, 0, "x"u8).Error,
            "unlink" => guest.Unlink(NodeId.Root, "f"),
            _ => guest.Create(NodeId.Root, "g").Error,
        };
        Assert.Equal(metadata, table.Read(word));
        Assert.Equal(kept.Epoch + VersionWord.Step, table.Epoch);
        Assert.False(kept.IsCurrent(table) || name.IsCurrent(table));

        // And what has changed nothing leaves all as it is.
        ulong epoch = table.Epoch;
        Assert.Equal(Errno.ENOENT, guest.Unlink(NodeId.Root, "missing"));
        Assert.Equal(epoch, table.Epoch);
    });

    // Otherwise one could take a name from an object that the other has found it to mean, and count the wrong one.
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Names_are_changed_one_at_a_time_whether_anybody_looks_or_not(bool isWatched) => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, VersionTableLayout.Default);
        using Guest guest = Guest.On(share);
        guest.LooksAtTable = isWatched;
        guest.FileSystem.MaxNameAttempts = 10;
        VersionTable table = share.Versions!.Table;
        File.WriteAllText(host["f"], "f");
        NodeId node = Guest.Good(guest.Lookup(NodeId.Root, "f")).NodeId;
        uint word = table.WordOfName(RootInode(host), "f"u8);
        table.Begin(word);

        Assert.Equal(Errno.EBUSY, guest.Unlink(NodeId.Root, "f"));
        Assert.Equal(Errno.EBUSY, guest.Rename(NodeId.Root, "f", NodeId.Root, "g"));
        Assert.Equal(Errno.EBUSY, guest.Create(NodeId.Root, "f").Error);
        Assert.True(File.Exists(host["f"]));
        Assert.Equal(Errno.ENOENT, guest.Unlink(NodeId.Root, "other"));
        Assert.Equal(1UL, table.Read(word) & VersionWord.InFlightMask);
        Assert.Equal(0UL, table.Epoch & VersionWord.InFlightMask);

        table.Cancel(word);
        Guest.Good(guest.Link(node, NodeId.Root, "g"));
        Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));
        Assert.Equal(0UL, table.Read(word) & VersionWord.InFlightMask);
    });

    [Fact]
    public void A_name_that_does_not_exist_can_be_kept_too() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, VersionTableLayout.Default);
        using Guest keeper = Guest.On(share);
        using Guest changer = Guest.On(share);
        Kept missing = Kept.Name(keeper, NodeId.Root, "f");
        Assert.Equal("ENOENT", missing.Value);
        Assert.True(missing.IsCurrent(share.Versions!.Table));
        Assert.True(missing.IsCurrent(share.Versions.Table));
        Guest.Good(changer.Create(NodeId.Root, "f"));
        Assert.False(missing.IsCurrent(share.Versions.Table));
    });

    [Fact]
    public void Words_go_to_others_when_nobody_refers_to_an_object_any_more() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Open(host, new VersionTableLayout(256, 16, 16, 16));
        using Guest guest = Guest.On(share);
        VersionTable table = share.Versions!.Table;
        Kept? old = null;
        for (int i = 0; i < 500; i++)
        {
            File.WriteAllText(host["f"], "x");
            Kept found = Kept.Found(guest, NodeId.Root, "f")!;
            if (old is not null)
            {
                Assert.True(!old.IsCurrent(table) || old.Proofs[0].Word != found.Proofs[0].Word);
            }

            old = found;
            NodeId node = Guest.Good(guest.Lookup(NodeId.Root, "f")).NodeId;
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));
            guest.Forget(node, 2);
        }

        guest.FileSystem.Destroy();
        Assert.Equal(1, share.Versions.Count);
        Assert.Equal(0UL, table.Read(VersionTableLayout.StatisticsWord + (uint)VersionStatistic.Overflows));
    });

    private static Share Open(HostDirectory host, VersionTableLayout layout) =>
        Share.Open(host.Options with { Xattr = true, VersionTable = layout });

    private static ulong RootInode(HostDirectory host)
    {
        using var guest = new Guest(host.Options);
        return Guest.Good(guest.GetAttr(NodeId.Root)).Attributes.Inode;
    }

    private static void Play((Step Step, int First, int Second)[] program, VersionTableLayout layout)
    {
        using var host = new HostDirectory();
        using Share share = Open(host, layout);
        using Guest changer = Guest.On(share);
        using Guest keeper = Guest.On(share);
        VersionTable table = share.Versions!.Table;
        Directory.CreateDirectory(host["d"]);
        Directory.CreateDirectory(host["e"]);
        var tree = new TwoGuests(changer, keeper);
        var kept = new Dictionary<string, Kept>();
        tree.LearnAll(kept);
        foreach ((Step step, int first, int second) in program)
        {
            tree.Change(step, first, second);
            Assert.Equal(0, tree.WordsInFlight(table));
            foreach (Kept item in kept.Values.Where(item => item.IsCurrent(table)))
            {
                Assert.True(item.Value == item.Ask(), $"after {step} {first} {second}: {item.What} is {item.Ask()}, kept {item.Value}");
            }

            // What is not current is learned anew, so that the next change has something to make void.
            tree.LearnAll(kept);
        }
    }

    /// <summary>One guest that changes a tree of three directories with three names each, and one that keeps what it learns.</summary>
    private sealed class TwoGuests(Guest changer, Guest keeper)
    {
        private readonly (NodeId Changer, NodeId Keeper)[] _directories =
        [
            (NodeId.Root, NodeId.Root),
            (changer.Walk("d").NodeId, keeper.Walk("d").NodeId),
            (changer.Walk("e").NodeId, keeper.Walk("e").NodeId),
        ];

        private readonly HashSet<uint> _words = [];

        public void Change(Step step, int first, int second)
        {
            NodeId parent = _directories[first / 3].Changer;
            string name = s_names[first % 3];
            NodeId otherParent = _directories[second / 3].Changer;
            string other = s_names[second % 3];
            Result<NodeEntry> found = changer.Lookup(parent, name);
            NodeId node = found.IsError ? NodeId.None : found.Value.NodeId;
            bool isFile = !found.IsError && (found.Value.Attributes.Mode & 0xf000) == 0x8000;
            _ = step switch
            {
                Step.Create => Done(changer.Create(parent, name)),
                Step.Mkdir => (object)changer.Mkdir(parent, name).Error,
                Step.Symlink => changer.Symlink(parent, name, "target").Error,
                Step.Link => node.Value == 0 ? null : changer.Link(node, otherParent, other).Error,
                Step.Unlink => changer.Unlink(parent, name),
                Step.Rmdir => changer.Rmdir(parent, name),
                Step.Rename => changer.Rename(parent, name, otherParent, other),
                Step.Exchange => changer.Rename(parent, name, otherParent, other, RenameFlags.Exchange),
                Step.Write when isFile => WithFile(node, handle => changer.Write(node, handle, (ulong)second, "data"u8).Error),
                Step.Allocate when isFile => WithFile(node, handle => Guest.Done(changer.FileSystem.FallocateAsync(
                    node, new FuseFallocateIn { Handle = handle, Offset = 0, Length = (ulong)(second + 1) * 4096 }, changer.Context))),
                Step.OpenTruncated when isFile => Released(node, changer.Open(node, OpenFlags.ReadWrite | OpenFlags.Truncate)),
                Step.Truncate when isFile =>
                    changer.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = (ulong)second }).Error,
                Step.Chmod when node.Value != 0 && (found.Value.Attributes.Mode & 0xf000) != 0xa000 =>
                    changer.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1c0 + (uint)second }).Error,
                Step.SetXattr when isFile => changer.SetXattr(node, "user.test", [(byte)second]),
                Step.RemoveXattr when isFile => changer.RemoveXattr(node, "user.test"),
                _ => null,
            };
            if (node.Value != 0)
            {
                changer.Forget(node);
            }
        }

        public void LearnAll(Dictionary<string, Kept> kept)
        {
            foreach ((_, NodeId directory) in _directories)
            {
                Keep(kept, Kept.Listing(keeper, directory));
                Keep(kept, Kept.Attributes(keeper, directory));
                foreach (string name in s_names)
                {
                    Keep(kept, Kept.Name(keeper, directory, name));
                    if (Kept.Found(keeper, directory, name) is { } found)
                    {
                        Keep(kept, found);
                        LearnFile(kept, directory, name);
                    }
                }
            }
        }

        public int WordsInFlight(VersionTable table) =>
            _words.Count(word => (table.Read(word) & VersionWord.InFlightMask) != 0)
            + (VersionWord.IsVersion(table.Epoch) ? 0 : 1);

        private void LearnFile(Dictionary<string, Kept> kept, NodeId directory, string name)
        {
            NodeEntry entry = Guest.Good(keeper.Lookup(directory, name));
            if ((entry.Attributes.Mode & 0xf000) == 0x8000)
            {
                Keep(kept, Kept.Xattr(keeper, entry.NodeId));
                HandleId handle = Guest.Good(keeper.Open(entry.NodeId)).Handle;
                Keep(kept, Kept.Content(keeper, entry.NodeId, handle));
            }
        }

        private void Keep(Dictionary<string, Kept> kept, Kept item)
        {
            kept[item.What] = item;
            foreach ((uint word, _) in item.Proofs)
            {
                if (word != 0)
                {
                    _words.Add(word);
                }
            }
        }

        private object Done(Result<FuseCreateOut> created)
        {
            if (!created.IsError)
            {
                changer.Release(created.Value.Entry.NodeId, created.Value.Open.Handle);
                changer.Forget(created.Value.Entry.NodeId);
            }

            return created.Error;
        }

        private Errno Released(NodeId node, Result<FuseOpenOut> opened) =>
            opened.IsError ? opened.Error : changer.Release(node, opened.Value.Handle);

        private Errno WithFile(NodeId node, Func<HandleId, Errno> use)
        {
            Result<FuseOpenOut> opened = changer.Open(node, OpenFlags.ReadWrite);
            if (opened.IsError)
            {
                return opened.Error;
            }

            Errno error = use(opened.Value.Handle);
            changer.Release(node, opened.Value.Handle);
            return error;
        }
    }
}
