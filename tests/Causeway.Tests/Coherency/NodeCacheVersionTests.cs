using Causeway.Driver;
using Causeway.Fuse;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Coherency;

/// <summary>What the client's cache believes, with the server's table in this process and replies made by hand.</summary>
public sealed class NodeCacheVersionTests : IDisposable
{
    private const uint File = 0x81A4;
    private const uint Directory = 0x41ED;
    private const uint Link = 0xA1FF;

    // Two words for names: some share one.
    private readonly VersionTable _table = VersionTable.Create(new VersionTableLayout(64, 2, 2, 16));
    private readonly VersionTableReader _reader;
    private readonly NodeCache _cache;
    private long _now = 1000;

    public NodeCacheVersionTests()
    {
        VersionTableLayout layout = _table.Layout;
        var region = new SharedMemoryRegion(layout.RegionSize, SharedMemoryUse.ReadOnly);
        Assert.True(region.Map(
            new SharedMemoryMapping(VersionTableLayout.RegionId, 0, 0, layout.RegionSize, SharedMemoryFlags.None),
            _table.Descriptor));
        _reader = VersionTableReader.TryOpen(region, () => _now)!;
        _reader.Believe(_now);
        _cache = new NodeCache(
            null!, new VirtioFsClientOptions { Cache = CacheMode.Coherent, MaxCachedNames = 16 }, _ => { })
        {
            Versions = _reader,
        };
    }

    [Fact]
    public void A_path_is_known_as_long_as_no_word_on_it_changes()
    {
        CachedNode directory = Learn(_cache.Root, "d", 2, Directory);
        Learn(directory, "f", 3, File, size: 7);
        Assert.Equal(PathAnswer.Found, Resolve("d/f", out ulong size));
        Assert.Equal(7UL, size);
        Assert.Equal(PathAnswer.Found, Resolve("//d/./f", out _));
        Assert.Equal(PathAnswer.Unknown, Resolve("d/../d/f", out _));
        Assert.Equal(PathAnswer.Unknown, Resolve("d/g", out _));

        // While it changes, and after.
        uint meta = VersionTable.WordOfSlot(3);
        _table.Begin(meta);
        Assert.Equal(PathAnswer.Unknown, Resolve("d/f", out _));
        Assert.Equal(PathAnswer.Found, _cache.Find("d/f", LinkHandling.Follow, out _));
        _table.End(meta);
        Assert.Equal(PathAnswer.Unknown, Resolve("d/f", out _));
        Learn(directory, "f", 3, File, size: 8);
        Assert.Equal(PathAnswer.Found, Resolve("d/f", out size));
        Assert.Equal(8UL, size);
    }

    [Fact]
    public void An_epoch_that_began_after_the_request_vouches_for_nothing()
    {
        ReplyNote note = _cache.Note();
        _table.AdvanceEpoch();
        Learn(_cache.Root, "f", 3, File, note: note);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
        Learn(_cache.Root, "f", 3, File);
        Assert.Equal(PathAnswer.Found, Resolve("f", out _));
        _table.Begin(VersionTableLayout.EpochWord);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));

        // Kept while everything is in flight: never.
        Learn(_cache.Root, "f", 3, File);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
        _table.End(VersionTableLayout.EpochWord);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
    }

    [Fact]
    public void Things_of_different_epochs_are_not_mixed()
    {
        Learn(_cache.Root, "d", 2, Directory);
        Assert.True(_cache.TryFind(_cache.Root, "d", out CachedNode? directory));
        _table.AdvanceEpoch();
        Learn(directory!, "f", 3, File);
        Assert.Equal(PathAnswer.Unknown, Resolve("d/f", out _));
    }

    [Fact]
    public void Another_name_of_the_same_word_costs_nothing_where_the_directory_has_not_changed()
    {
        Learn(_cache.Root, "f", 3, File);
        Step(_table.WordOfName(1, "f"u8));
        Assert.Equal(PathAnswer.Found, Resolve("f", out _));
        Step(VersionTable.WordOfSlot(1) + 1);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
    }

    [Fact]
    public void Another_name_in_the_directory_costs_nothing_where_the_name_has_not_changed()
    {
        Learn(_cache.Root, "f", 3, File);
        uint directory = VersionTable.WordOfSlot(1) + 1;
        Step(directory);
        Assert.Equal(PathAnswer.Found, Resolve("f", out _));

        // The directory vouches for it again: another name of the same word may change now.
        Step(_table.WordOfName(1, "f"u8));
        Assert.Equal(PathAnswer.Found, Resolve("f", out _));
        Step(directory);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
    }

    [Fact]
    public void A_word_in_flight_is_not_kept_as_a_version()
    {
        Learn(_cache.Root, "f", 3, File);
        uint directory = VersionTable.WordOfSlot(1) + 1;
        _table.Begin(directory);
        Assert.Equal(PathAnswer.Found, Resolve("f", out _));
        Step(_table.WordOfName(1, "f"u8));
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
        _table.End(directory);
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
    }

    [Fact]
    public void A_name_that_does_not_exist_is_known_too()
    {
        ReplyNote note = _cache.Note();
        note.Tags = Tags("gone", 0);
        _cache.LearnMissing(_cache.Root, "gone", note);
        Assert.Equal(PathAnswer.Missing, Resolve("gone", out _));
        Assert.Equal(PathAnswer.Missing, Resolve("gone/further", out _));
        Assert.True(_cache.TryFind(_cache.Root, "gone", out CachedNode? node));
        Assert.Null(node);
        Step(_table.WordOfName(1, "gone"u8));
        Step(VersionTable.WordOfSlot(1) + 1);
        Assert.Equal(PathAnswer.Unknown, Resolve("gone", out _));
        Assert.False(_cache.TryFind(_cache.Root, "gone", out _));
    }

    [Fact]
    public void Links_are_followed_as_far_as_they_are_known()
    {
        CachedNode directory = Learn(_cache.Root, "d", 2, Directory);
        Learn(directory, "f", 3, File, size: 9);
        CachedNode link = Learn(directory, "link", 4, Link);
        Assert.Equal(PathAnswer.Unknown, Resolve("d/link", out _));
        ReplyNote note = _cache.Note();
        note.Tags = Tags("", 4);
        NodeCache.LearnTarget(link, "f", note);
        Assert.Equal(PathAnswer.Found, Resolve("d/link", out ulong size));
        Assert.Equal(9UL, size);
        Assert.Equal(PathAnswer.Found, Resolve("d/link/", out _));
        _cache.Find("d/link", LinkHandling.NoFollow, out CachedNode found);
        Assert.Same(link, found);

        // One that leads to itself ends.
        NodeCache.LearnTarget(link, "/d/link", note);
        Assert.Equal(PathAnswer.Unknown, Resolve("d/link", out _));
    }

    [Fact]
    public void A_reply_that_comes_late_does_not_displace_a_newer_one()
    {
        ReplyNote early = _cache.Note();
        early.Tags = Tags("f", 3);
        Step(VersionTable.WordOfSlot(3));
        CachedNode node = Learn(_cache.Root, "f", 3, File, size: 2);
        _cache.LearnAttributes(node, new FuseAttributes { Mode = File, Size = 1 }, early);
        Assert.Equal(PathAnswer.Found, Resolve("f", out ulong size));
        Assert.Equal(2UL, size);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(16u)] // the epoch
    [InlineData(513u)] // a CONTENT
    [InlineData(0x7FFF_FFFFu)]
    [InlineData(uint.MaxValue)]
    public void Words_that_are_none_vouch_for_nothing(uint word)
    {
        ReplyNote note = _cache.Note();
        FuseVersionTags tags = Tags("f", 3);
        tags.InodeWord = word;
        tags.NameWord = word;
        tags.DirectoryWord = word;
        note.Tags = tags;
        _cache.LearnMissing(_cache.Root, "f", note);
        CachedNode node = _cache.Learn(Entry(3, File, 1), note.Tags, _cache.Root, "f", note);
        NodeCache.LearnTarget(node, "x", note);
        _cache.LearnXattr(node, "x", [1], note);
        _cache.LearnListing(node, [], note.Content);
        Assert.Equal(0, _cache.Count.Names);
        Assert.False(_cache.TryGetAttributes(node, out _));
        Assert.Null(_cache.TargetOf(node));
        Assert.Null(_cache.FindXattr(node, "x"));
        Assert.Null(node.Listing);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(0x2_0001UL)] // in flight
    [InlineData(ulong.MaxValue)]
    public void Versions_that_are_none_vouch_for_nothing(ulong version)
    {
        ReplyNote note = _cache.Note();
        note.Tags = Tags("f", 3) with { Metadata = version, Content = version, Name = version, DirectoryContent = version };
        CachedNode node = _cache.Learn(Entry(3, File, 1), note.Tags, _cache.Root, "f", note);
        Assert.Equal(0, _cache.Count.Names);
        Assert.False(_cache.TryGetAttributes(node, out _));
    }

    [Fact]
    public void Nothing_is_believed_once_the_heart_has_stopped_and_again_when_it_beats()
    {
        Learn(_cache.Root, "f", 3, File);
        _now += 1001;
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
        Assert.False(_cache.TryFind(_cache.Root, "f", out _));
        _reader.Believe(_now);
        Assert.Equal(PathAnswer.Found, Resolve("f", out _));
        _reader.Kill();
        Assert.Equal(PathAnswer.Unknown, Resolve("f", out _));
    }

    [Fact]
    public void Names_that_are_used_stay_when_others_are_displaced()
    {
        Learn(_cache.Root, "kept", 2, File);
        for (ulong i = 0; i < 40; i++)
        {
            Learn(_cache.Root, $"n{i}", 3 + i, File);
            Assert.Equal(PathAnswer.Found, Resolve("kept", out _));
            Assert.InRange(_cache.Count.Names, 1, 16);
        }
    }

    [Fact]
    public void Listings_take_no_more_memory_than_allowed()
    {
        for (ulong i = 0; i < 10; i++)
        {
            CachedNode node = Learn(_cache.Root, $"d{i}", 2 + i, Directory);
            ReplyNote note = _cache.Note();
            note.Tags = Tags("", 2 + i);
            _cache.LearnListing(
                node, [.. Enumerable.Range(0, 5).Select(j => new DirectoryItem($"{j}", FileKind.File, 1, null))], note.Content);
            Assert.InRange(_cache.Count.ListedNames, 5, 16);
            Assert.NotNull(node.Listing);
        }
    }

    [Fact]
    public void Extended_attributes_are_kept_as_long_as_they_are_of_one_version()
    {
        CachedNode node = Learn(_cache.Root, "f", 3, File);
        Keep("a", 1);
        Keep("b", 2);
        Assert.Equal(1, _cache.FindXattr(node, "a")![0]);
        Assert.Equal(2, _cache.FindXattr(node, "b")![0]);
        Step(VersionTable.WordOfSlot(3));
        Assert.Null(_cache.FindXattr(node, "a"));
        Keep("b", 3);
        Assert.Null(_cache.FindXattr(node, "a"));
        Assert.Equal(3, _cache.FindXattr(node, "b")![0]);
        for (byte i = 0; i < 20; i++)
        {
            Keep($"n{i}", i);
        }

        Assert.Null(_cache.FindXattr(node, "b"));
        Assert.Equal(19, _cache.FindXattr(node, "n19")![0]);

        void Keep(string name, byte value)
        {
            ReplyNote note = _cache.Note();
            note.Tags = Tags("", 3);
            _cache.LearnXattr(node, name, [value], note);
        }
    }

    [Fact]
    public void Resolving_allocates_nothing()
    {
        CachedNode directory = Learn(_cache.Root, "d", 2, Directory);
        Learn(directory, "f", 3, File);
        for (int round = 0; round < 2; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            bool areAllFound = true;
            for (int i = 0; i < 1000; i++)
            {
                areAllFound &= Resolve("d/f", out _) == PathAnswer.Found;
            }

            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(areAllFound);
            Assert.True(round == 0 || allocated == 0, $"{allocated} bytes were allocated");
        }
    }

    public void Dispose()
    {
        _reader.Dispose();
        _table.Dispose();
    }

    private static NodeEntry Entry(ulong node, uint mode, ulong size) => new()
    {
        NodeId = new NodeId(node), Attributes = new FuseAttributes { Mode = mode, Size = size, Inode = node },
    };

    // Slots are numbered as nodes are, and the root is the directory of all names that words are made for here.
    private FuseVersionTags Tags(string name, ulong node) => new()
    {
        InodeWord = node == 0 ? 0 : VersionTable.WordOfSlot((int)node),
        Metadata = node == 0 ? 0 : _table.ReadVersion(VersionTable.WordOfSlot((int)node)),
        Content = node == 0 ? 0 : _table.ReadVersion(VersionTable.WordOfSlot((int)node) + 1),
        NameWord = name.Length == 0 ? 0 : _table.WordOfName(1, System.Text.Encoding.UTF8.GetBytes(name)),
        Name = name.Length == 0 ? 0 : _table.ReadVersion(_table.WordOfName(1, System.Text.Encoding.UTF8.GetBytes(name))),
        DirectoryWord = VersionTable.WordOfSlot(1),
        DirectoryContent = _table.ReadVersion(VersionTable.WordOfSlot(1) + 1),
    };

    private CachedNode Learn(
        CachedNode parent, string name, ulong node, uint mode, ulong size = 0, ReplyNote? note = null)
    {
        note ??= _cache.Note();
        note.Tags = Tags(name, node);

        // Held from then on: there is no transport here that a FORGET could be sent by.
        return _cache.Learn(Entry(node, mode, size), note.Tags, parent, name, note);
    }

    private PathAnswer Resolve(string path, out ulong size)
    {
        PathAnswer answer = _cache.Resolve(path, LinkHandling.Follow, out KnownAttributes known);
        size = known.Attributes.Size;
        return answer;
    }

    private void Step(uint word)
    {
        _table.Begin(word);
        _table.End(word);
    }
}
