using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// Which words of the version table cover which object of the host: one pair of words for an object, the same for all sessions of
/// a share, as long as any node, open file or change refers to it.
/// </summary>
/// <remarks>
/// <para>Objects are told apart by inode number alone. Two with the same number, on different file systems or one after the other,
/// share their words: then each is read anew when the other changes, and nothing is ever missed.</para>
/// <para>Who changes an object has its words, too: otherwise a session that meets the object during the change would get words
/// that know nothing of it.</para>
/// </remarks>
internal sealed class ObjectVersions
{
    // Arbitrary: enough that threads rarely meet.
    private const int StripeCount = 64;

    private readonly VersionTable _table;
    private readonly Stripe[] _stripes;
    private readonly Lock _allocation = new();
    private readonly Stack<int> _freeSlots = new();
    private int _nextSlot;
    private ulong _top;
    private ulong _topDevice;

    /// <summary>Makes an empty registry.</summary>
    /// <param name="table">The table; it stays the caller's.</param>
    /// <param name="isExclusive">Whether nobody but the sessions of the share changes it.</param>
    public ObjectVersions(VersionTable table, bool isExclusive)
    {
        _table = table;
        Names = isExclusive ? new RememberedNames() : null;
        _stripes = [.. Enumerable.Range(0, StripeCount).Select(_ => new Stripe())];
    }

    /// <summary>The table.</summary>
    public VersionTable Table => _table;

    /// <summary>What names mean that were given lately; null where others change names, too.</summary>
    public RememberedNames? Names { get; }

    /// <summary>Delegations, without which words stay in flight; null where none are needed.</summary>
    public DelegationTable? Delegations { get; private set; }

    /// <summary>How many objects have words now. For tests.</summary>
    internal int Count => _stripes.Sum(stripe => stripe.Count);

    /// <summary>From now on words are in flight but for objects of which a delegation is held. Before any object has some.</summary>
    /// <param name="root">The shared directory.</param>
    /// <param name="most">Most delegations at a time.</param>
    /// <param name="descriptorLimit">The limit of open files.</param>
    /// <exception cref="ErrnoException">There are no delegations here.</exception>
    public void Delegate(int root, int most, int descriptorLimit)
    {
        Files.Statx(root, PassthroughFileSystem.LookupMask, out StatxBuffer status).ThrowIfError("look at the shared directory");
        _top = status.Inode;
        _topDevice = MountTable.DeviceOf(status);
        Delegations = new DelegationTable(this, root, most, descriptorLimit);
    }

    /// <summary>Whether objects of a mount have words: numbers that last, and with delegations that are those of one file system.</summary>
    /// <param name="mount">The mount.</param>
    public bool Covers(Mount mount) => mount.HasLastingNumbers && (Delegations is null || mount.Device == _topDevice);

    /// <summary>Whether an object is the shared directory. With delegations.</summary>
    /// <param name="inode">Its inode number.</param>
    public bool IsTop(ulong inode) => inode == _top;

    /// <summary>The one word of all names in a directory, where delegations make them change together.</summary>
    /// <param name="directory">The directory's inode number.</param>
    public uint WordOfNamesIn(ulong directory) => _table.WordOfName(directory, name: []);

    /// <summary>Finds an object's words or gives it some, and refers to them.</summary>
    /// <param name="inode">The inode number.</param>
    /// <param name="mayHaveOwn">Whether it may take words of its own; otherwise it gets shared ones, if it has none yet.</param>
    /// <returns>The META word. To be given back by <see cref="Release"/>.</returns>
    public uint Acquire(ulong inode, bool mayHaveOwn = true)
    {
        Stripe stripe = StripeOf(inode);
        lock (stripe.Gate)
        {
            if (stripe.Objects.TryGetValue(inode, out Entry known))
            {
                stripe.Objects[inode] = known with { Uses = known.Uses + 1 };
                return known.Word;
            }

            uint word = mayHaveOwn && TryTakeSlot(out int slot) ? VersionTable.WordOfSlot(slot) : ShareWords(inode);
            stripe.Objects.Add(inode, new Entry(word, 1));
            return word;
        }
    }

    /// <summary>Gives a reference back. With the last one the words are free for others.</summary>
    /// <param name="inode">The inode number.</param>
    public void Release(ulong inode)
    {
        Stripe stripe = StripeOf(inode);
        int descriptor;
        lock (stripe.Gate)
        {
            Entry known = stripe.Objects[inode];
            if (known.Uses > 1)
            {
                stripe.Objects[inode] = known with { Uses = known.Uses - 1 };
                return;
            }

            stripe.Objects.Remove(inode);
            descriptor = Delegations?.Leave(known.Word) ?? -1;
            GiveUp(known.Word);
        }

        if (descriptor >= 0)
        {
            _ = FileIO.Close(descriptor);
        }
    }

    /// <summary>Finds the words of an object, if it has any. They may be another's as soon as they are found.</summary>
    /// <param name="inode">The inode number.</param>
    /// <returns>The META word; zero when there is none, and then nobody keeps anything of the object.</returns>
    public uint Find(ulong inode)
    {
        Stripe stripe = StripeOf(inode);
        lock (stripe.Gate)
        {
            return stripe.Objects.TryGetValue(inode, out Entry known) ? known.Word : 0;
        }
    }

    /// <summary>An object has changed already, without us. Who has no words has given none to any guest.</summary>
    /// <param name="inode">The inode number.</param>
    public void Advance(ulong inode)
    {
        uint word = Find(inode);
        if (word != 0)
        {
            _table.Advance(word);
            _table.Advance(word + 1);
            _table.Log(word, word + 1);
        }
    }

    /// <summary>A name has changed its meaning already, without us.</summary>
    /// <param name="directory">The inode number of its directory.</param>
    /// <param name="name">The name, without NUL.</param>
    public void AdvanceName(ulong directory, ReadOnlySpan<byte> name)
    {
        uint word = _table.WordOfName(directory, name);
        _table.Advance(word);
        _table.Log(word);
    }

    /// <summary>Whether words are shared with other objects.</summary>
    /// <param name="word">The META word.</param>
    public bool IsShared(uint word) => word >= _table.Layout.SharedOffset / sizeof(ulong);

    private Stripe StripeOf(ulong inode) => _stripes[NodeKey.HashOf(0, inode) % StripeCount];

    private bool TryTakeSlot(out int slot)
    {
        lock (_allocation)
        {
            if (!_freeSlots.TryPop(out slot))
            {
                if (_nextSlot == _table.Layout.Inodes)
                {
                    return false;
                }

                // One after the other: what is met together lies together.
                slot = _nextSlot++;
                if (Delegations is not null)
                {
                    // Until a delegation ends it. Pairs that are given up are in flight already.
                    _table.Begin(VersionTable.WordOfSlot(slot));
                    _table.Begin(VersionTable.WordOfSlot(slot) + 1);
                }
            }
        }

        _table.Count(VersionStatistic.SlotsUsed);
        return true;
    }

    private uint ShareWords(ulong inode)
    {
        _table.Count(VersionStatistic.Overflows);
        return _table.SharedWordOf(inode);
    }

    // With the stripe's lock held, so that nobody finds the object between its words and without.
    private void GiveUp(uint word)
    {
        // What anybody still keeps under these words is of the old object. Shared ones too: the object may have others next time.
        _table.Advance(word);
        _table.Advance(word + 1);
        if (IsShared(word))
        {
            return;
        }

        _table.Count(VersionStatistic.SlotsUsed, -1);
        int slot = (int)(((word * sizeof(ulong)) - VersionTableLayout.InodesOffset) / VersionTableLayout.PairSize);
        lock (_allocation)
        {
            _freeSlots.Push(slot);
        }
    }

    private readonly record struct Entry(uint Word, int Uses);

    private sealed class Stripe
    {
        public Lock Gate { get; } = new();

        public Dictionary<ulong, Entry> Objects { get; } = [];

        public int Count
        {
            get
            {
                lock (Gate)
                {
                    return Objects.Count;
                }
            }
        }
    }
}
