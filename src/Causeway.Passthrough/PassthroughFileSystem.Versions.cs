using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// The version table (docs/coherency.md): what this session changes is counted in it, whoever the guest is, and what it tells a
// guest that wants versions carries those it read before it looked.
//
//   who looks     reads the words, then asks the kernel, then answers
//   who changes   begins on the words, then asks the kernel, then ends, then answers
//
// A look that overlaps a change is not to be kept: either it reads a word that is in flight, or the word moves afterwards.
public sealed unsafe partial class PassthroughFileSystem
{
    private readonly ObjectVersions? _versions;
    private readonly SessionVersions? _ownVersions;

    /// <summary>
    /// For so many turns, of a millisecond each but for the first, a change of a name waits for one of the same name to end.
    /// </summary>
    internal int MaxNameAttempts { get; set; } = 10_000;

    /// <summary>For tests that show what the second look of <see cref="StampFound"/> is for.</summary>
    internal bool SkipsSecondLook { get; set; }

    /// <summary>For the same: called between the two looks.</summary>
    internal Action? SecondLookPause { get; set; }

    /// <inheritdoc/>
    public override VersionTable? Versions => _versions?.Table;

    // A node's META word; zero without a table, and where objects change their numbers or somebody else changes them.
    private uint WordOf(Node* node)
    {
        if (_versions is null)
        {
            return 0;
        }

        uint word = Volatile.Read(ref node->VersionWord);
        return word != 0 ? word : AcquireWord(node);
    }

    private uint AcquireWord(Node* node)
    {
        if (!_versions!.Covers(_mounts[node->Mount]))
        {
            return 0;
        }

        uint word = _ownVersions!.Acquire(node->Inode);
        if (Interlocked.CompareExchange(ref node->VersionWord, word, 0) != 0)
        {
            _ownVersions.Release(node->Inode);
        }

        return word;
    }

    // By which an open file gets words of its own; zero where it gets none.
    private ulong VersionedInode(Node* node) =>
        _versions is not null && _versions.Covers(_mounts[node->Mount]) ? node->Inode : 0;

    // The node is gone.
    private void ReleaseWord(Node* node)
    {
        if (node->VersionWord != 0)
        {
            node->VersionWord = 0;
            _ownVersions!.Release(node->Inode);
        }
    }

    // The word of a name in a directory. The name comes without NUL.
    private uint WordOf(Node* directory, ReadOnlySpan<byte> name) =>
        WordOf(directory) == 0 ? 0 : _versions!.Table.WordOfName(directory->Inode, name);

    private VersionChange BeginChange() =>
        _versions is null ? VersionChange.None : WorkerThread.Current.ChangeIn(_versions).Start();

    // The same, if the change is to begin on it.
    private uint WordOf(Node* node, VersionChange change) => change.NeedsWords ? WordOf(node) : 0;

    private uint WordOf(OpenFile* file, VersionChange change) => change.NeedsWords ? _files.WordOf(file) : 0;

    private VersionChange BeginDataChange(OpenFile* file)
    {
        VersionChange change = BeginChange();
        return change.OnBoth(WordOf(file, change));
    }

    // What opening a file with O_TRUNC changes; nothing without.
    private VersionChange BeginTruncation(Node* node, int flags)
    {
        VersionChange change = (flags & OpenFlags.Truncate) == 0 ? VersionChange.None : BeginChange();
        return change.OnBoth(WordOf(node, change));
    }

    // A change of what names mean begins only while no other of the same name is under way, as in the kernel, where the directory is
    // locked: so the object that a name means can be found out first, and its words are among those that change. That holds while
    // nobody looks, too: whoever found an object when somebody did may not have taken its name away yet. EBUSY when the other does
    // not end; nothing has begun then.
    private Errno BeginNames(ref NameChange change, in Parent parent, FileName name, NameUse use) =>
        BeginNames(ref change, parent, name, use, parent, default, NameUse.Made);

    private Errno BeginNames(
        ref NameChange change,
        in Parent parent,
        FileName name,
        NameUse use,
        in Parent newParent,
        FileName newName,
        NameUse newUse)
    {
        if (_versions is null)
        {
            return Errno.Success;
        }

        var wait = new SpinWait();
        for (int attempt = 0; attempt < MaxNameAttempts; attempt++)
        {
            if (change.TryBegin(parent, name, use)
                && (newName.Terminated.IsEmpty || change.TryBegin(newParent, newName, newUse)))
            {
                return Errno.Success;
            }

            change.GiveUp();
            _versions.Table.Count(VersionStatistic.Conflicts);
            wait.SpinOnce();
        }

        change.Settle(Errno.EBUSY);
        return Errno.EBUSY;
    }

    // To be called before the kernel is asked about an object.
    private void Stamp(RequestContext context, uint word)
    {
        if (context.WantsVersions && word != 0)
        {
            Stamp(ref context.Versions, word);
        }
    }

    private void StampFile(RequestContext context, OpenFile* file)
    {
        if (context.WantsVersions)
        {
            uint word = _files.WordOf(file);
            Cover(word, file);
            Stamp(context, word);
        }
    }

    private void StampNode(RequestContext context, Node* node, in NodeDescriptor descriptor)
    {
        if (context.WantsVersions)
        {
            Cover(node, descriptor.Value);
            Stamp(context, WordOf(node));
        }
    }

    // The same, but what is not covered is left so: it is being changed, or opened for that.
    private void StampAsItIs(RequestContext context, Node* node)
    {
        if (context.WantsVersions)
        {
            Stamp(context, WordOf(node));
        }
    }

    // Where words are in flight unless the kernel asks us first, it is made to, before the object is looked at.
    private void Cover(Node* node, int descriptor)
    {
        if (_versions is { Delegations: { } delegations } && WordOf(node) is not 0 and uint word)
        {
            delegations.Cover(word, node->Inode, descriptor, KindOf(node));
        }
    }

    private void Cover(uint word, OpenFile* file)
    {
        if (word != 0 && _versions!.Delegations is { } delegations && (file->Flags & OpenFileFlags.Writable) == 0)
        {
            bool isDirectory = (file->Flags & OpenFileFlags.Directory) != 0;
            delegations.Cover(word, file->Inode, file->Descriptor, isDirectory ? DelegatedKind.Directory : DelegatedKind.File);
        }
    }

    private static DelegatedKind KindOf(Node* node) => node->IsRegular ? DelegatedKind.File
        : node->IsDirectory ? DelegatedKind.Directory
        : node->IsSymbolicLink ? DelegatedKind.Link
        : DelegatedKind.Other;

    private void Stamp(ref FuseVersionTags tags, uint word)
    {
        VersionTable table = _versions!.Table;
        if (_versions.Delegations is not null && _versions.IsShared(word))
        {
            // Nobody can tell of which of its objects there is a delegation.
            return;
        }

        tags.InodeWord = word;
        tags.Metadata = table.ReadVersion(word);
        tags.Content = table.ReadVersion(word + 1);
        tags.Flags = _versions.IsShared(word) ? FuseVersionFlags.SharedWords : FuseVersionFlags.None;
    }

    // The same for a name, before it is looked up in a directory that is covered if it can be.
    private void StampName(ref FuseVersionTags tags, Node* directory, ReadOnlySpan<byte> name)
    {
        uint word = WordOf(directory);
        if (word != 0)
        {
            VersionTable table = _versions!.Table;
            bool isDelegated = _versions!.Delegations is not null;
            if (isDelegated && _versions.IsShared(word))
            {
                return;
            }

            tags.NameWord = isDelegated ? _versions.WordOfNamesIn(directory->Inode) : table.WordOfName(directory->Inode, name);
            tags.Name = table.ReadVersion(tags.NameWord);
            tags.DirectoryWord = word;

            // In this order: the directory's content is in flight before the word of its names moves, so if it was not in flight now, the
            // word is going to move when the delegation is given back.
            tags.DirectoryContent = table.ReadVersion(word + 1);
            if (isDelegated && tags.DirectoryContent == 0)
            {
                tags.Name = 0;
            }
        }
    }

    // What a name means after a change that gave it its meaning. The entry must not have been looked up by name.
    private void StampChangedName(RequestContext context, VersionChange change, in Parent parent, ReadOnlySpan<byte> name)
    {
        uint word = context.WantsVersions ? WordOf(parent.Node) : 0;
        if (word != 0 && _versions!.Delegations is null)
        {
            ref FuseVersionTags tags = ref context.Versions;
            tags.NameWord = _versions!.Table.WordOfName(parent.Node->Inode, name);
            tags.Name = change.After(tags.NameWord);
            tags.DirectoryWord = word;
            tags.DirectoryContent = change.After(word + 1);
        }
    }

    // What has become of an object that was changed, for the reply that says so.
    private void StampChanged(RequestContext context, VersionChange change, uint word)
    {
        if (context.WantsVersions && word != 0)
        {
            ref FuseVersionTags tags = ref context.Versions;
            tags.InodeWord = word;
            tags.MetadataBefore = change.Before(word);
            tags.Metadata = change.After(word);
            tags.ContentBefore = change.Before(word + 1);
            tags.Content = change.After(word + 1);
            tags.Flags = _versions!.IsShared(word) ? FuseVersionFlags.SharedWords : FuseVersionFlags.None;
        }
    }

    // A listing is of the version that the directory had before the kernel was asked for what is in it; of none, if that was done
    // more than once and it has changed in between.
    private void StampListing(RequestContext context, OpenFile* file, ulong version)
    {
        if (context.WantsVersions && file->VersionWord != 0)
        {
            ref FuseVersionTags tags = ref context.Versions;
            bool isFirst = tags.InodeWord == 0;
            tags.InodeWord = file->VersionWord;
            tags.Content = isFirst || tags.Content == version ? version : 0;
            tags.Flags = _versions!.IsShared(file->VersionWord) ? FuseVersionFlags.SharedWords : FuseVersionFlags.None;
        }
    }

    // A node that was just found says which words count; what was read of it before they were is not to be told with them. So its
    // attributes are read once more.
    private void StampFound(ref FuseVersionTags tags, ref NodeEntry entry)
    {
        Node* node = _nodes.Resolve(entry.NodeId);
        uint word = node == null ? 0 : WordOf(node);
        if (word == 0)
        {
            return;
        }

        SecondLookPause?.Invoke();
        Mount mount = _mounts[node->Mount];
        using NodeDescriptor descriptor = Borrow(node, mount);
        if (!descriptor.IsError)
        {
            Cover(node, descriptor.Value);
        }

        Stamp(ref tags, word);
        if (SkipsSecondLook)
        {
            return;
        }

        if (descriptor.IsError || Files.Statx(descriptor.Value, LookupMask, out StatxBuffer status).IsError)
        {
            tags.Metadata = 0;
            tags.Content = 0;
            return;
        }

        FuseAttributeFlags flags = entry.Attributes.Flags;
        PrepareToTell(node, mount, ref status);
        Tell(status, out entry.Attributes);
        entry.Attributes.Flags = (flags & FuseAttributeFlags.Submount) != 0 ? flags : MappingFlags(node, mount, status.Size);
    }

    /// <summary>What becomes of the object that a name means.</summary>
    private enum NameUse
    {
        /// <summary>There is none: the name is new.</summary>
        Made,

        /// <summary>It loses the name, or changes places with another.</summary>
        Taken,
    }

    /// <summary>A change of names, with the objects that have them: their words are held until it is settled.</summary>
    private ref struct NameChange
    {
        private readonly PassthroughFileSystem _owner;
        private ulong _first;
        private ulong _second;
        private bool _hasFirst;
        private bool _hasSecond;
        private uint _word;
        private NamedObject _lost;
        private NamedObject _moved;
        private bool _hasLooked;
        private bool _isThere;
        private StatxBuffer _status;

        public NameChange(PassthroughFileSystem owner, VersionChange change)
        {
            _owner = owner;
            Change = change;
        }

        /// <summary>The change itself.</summary>
        public VersionChange Change { get; }

        /// <summary>Whether it is known what the name means that was begun on last.</summary>
        public readonly bool IsKnown => _hasLooked || _isThere;

        /// <summary>Whether the name that was begun on last, to be taken, means anything.</summary>
        public readonly bool IsThere => _isThere;

        /// <summary>What the name means that was begun on before the last, if it was to be taken.</summary>
        public readonly NamedObject Moved => _moved;

        /// <summary>Begins on a name, its directory, and the object it means now.</summary>
        /// <param name="parent">The directory.</param>
        /// <param name="name">The name.</param>
        /// <param name="use">What becomes of that object.</param>
        /// <returns>False when another change of the name is under way.</returns>
        public bool TryBegin(in Parent parent, FileName name, NameUse use)
        {
            Begin();
            ObjectVersions versions = _owner._versions!;
            if (_owner.VersionedInode(parent.Node) == 0)
            {
                return true;
            }

            uint word = versions.Table.WordOfName(parent.Node->Inode, name.Bytes);
            if (!Change.TryAlone(word))
            {
                return false;
            }

            if (!Change.NeedsWords)
            {
                return true;
            }

            _word = word;
            Change.OnBoth(_owner.WordOf(parent.Node));
            if (use != NameUse.Made && Find(parent, name, word, out _lost))
            {
                // A directory that is removed or moved loses its ".." as well.
                uint victim = Hold(versions.Acquire(_lost.Inode), _lost.Inode);
                Change.On(victim).On(_lost.IsDirectory ? victim + 1 : 0);
            }

            return true;
        }

        /// <summary>After the change: keeps what it has made the name mean that it began on last, for whoever takes the name away.</summary>
        /// <param name="parent">The directory.</param>
        /// <param name="name">The name.</param>
        /// <param name="meaning">The object.</param>
        public readonly void Remember(in Parent parent, FileName name, NamedObject meaning)
        {
            if (_word == 0 || meaning.Inode == 0 || _owner._versions!.Names is not { } names)
            {
                return;
            }

            ulong version = Change.After(_word);
            if (version != 0)
            {
                names.Remember(Named(parent, name, _word), version, meaning);
            }
        }

        /// <summary>Looks what a name means before it is taken away: once, if it was the last that was begun on.</summary>
        /// <param name="parent">The directory.</param>
        /// <param name="name">The name.</param>
        /// <param name="status">The object.</param>
        /// <returns>Whether there is any.</returns>
        public bool Look(in Parent parent, FileName name, out StatxBuffer status)
        {
            if (!_hasLooked)
            {
                _hasLooked = true;
                _isThere = !Files.Statx(parent.Descriptor, name.Terminated, NotFollowed, LookupMask, out _status).IsError;
            }

            status = _status;
            return _isThere;
        }

        /// <summary>Undoes what was begun, to begin again.</summary>
        public void GiveUp()
        {
            Change.Abandon();
            Drop();
            Begin();
            _moved = default;
        }

        /// <summary>The change is over, see <see cref="VersionChange.Settle"/>.</summary>
        public void Settle(Errno error)
        {
            Change.Settle(error);
            Drop();
        }

        private static VersionedName Named(in Parent parent, FileName name, uint word) =>
            new(word, parent.Mount.Device, parent.Node->Inode, name.Bytes);

        private void Begin()
        {
            _word = 0;
            _moved = _lost;
            _lost = default;
            _hasLooked = false;
            _isThere = false;
        }

        private bool Find(in Parent parent, FileName name, uint word, out NamedObject meaning)
        {
            if (_owner._versions!.Names is { } names
                && names.TryRecall(Named(parent, name, word), Change.HeldAt(word), out meaning))
            {
                _isThere = true;
                return true;
            }

            bool isThere = Look(parent, name, out StatxBuffer status);
            meaning = isThere ? new NamedObject(status.Inode, IsDirectory(status.Mode)) : default;
            return isThere;
        }

        private uint Hold(uint word, ulong inode)
        {
            (_second, _hasSecond) = (_first, _hasFirst);
            (_first, _hasFirst) = (inode, true);
            return word;
        }

        private void Drop()
        {
            if (_hasFirst)
            {
                _owner._versions!.Release(_first);
            }

            if (_hasSecond)
            {
                _owner._versions!.Release(_second);
            }

            _hasFirst = false;
            _hasSecond = false;
        }
    }
}
