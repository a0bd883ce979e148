using System.Buffers.Binary;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// From a name to a node. What a name means is found out by as few system calls as prove it:
//
//   the parent's file system has handles        it has none
//   --------------------------------------     ------------------------------------------------
//   statx(parent, name)                         name handed out before: statx(parent, name)
//     known and pinned, or old: done              known: done
//     known by handle: name_to_handle_at and    openat2(parent, name, O_PATH), statx of that:
//       compare; at the next time open it,        known: close; else the node keeps the descriptor
//       which proves as much, and keep it
//     new, but old, and forgotten lately: done
//     new: name_to_handle_at
//
// What the guest has just made is opened by its name (openat2, O_PATH) as long as there are descriptors to spare, because it
// is about to be used; its handle is asked for when the descriptor is needed elsewhere.
//
// An inode number and a time of birth alone prove nothing: the number of a deleted object may be used again within the same
// tick of the clock. A descriptor does, because it keeps the number in use, and so does a handle, which has a generation. So do
// both when the object had been there for some time when its handle was asked for: it is old (RememberedHandles).
public sealed unsafe partial class PassthroughFileSystem
{
    private const AtFlags NotFollowed = AtFlags.NoFollow | AtFlags.NoAutomount;
    private const ResolveFlags OneComponent =
        ResolveFlags.Beneath | ResolveFlags.NoSymlinks | ResolveFlags.NoMagicLinks;

    private static readonly int s_pathFlags = OpenFlags.Path | OpenFlags.NoFollow | OpenFlags.CloseOnExec;

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context) =>
        new(Lookup(parent, name, context));

    /// <inheritdoc/>
    public override void Forget(NodeId node, ulong lookupCount)
    {
        using Operation operation = Begin();
        Node* found = _nodes.Resolve(node);
        if (found != null && found != _nodes.Root && _nodes.RemoveLookups(found, lookupCount))
        {
            _nodes.Remember(found, _remembered);
            Retire(_nodes.IndexOf(found));
        }
    }

    private Result<NodeEntry> Lookup(NodeId parent, FileName name, RequestContext context)
    {
        using Operation operation = Begin();
        Errno error = operation.FindDirectory(parent, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        if (directory.IsError)
        {
            return directory.Error;
        }

        if (context.WantsVersions)
        {
            Cover(node, directory.Value);
            StampName(ref context.Versions, node, name.Bytes);
        }

        error = LookupName(new Parent(node, mount, directory.Value), name.Terminated, mayEvict: true, out NodeEntry entry);
        if (error == Errno.Success && context.WantsVersions)
        {
            StampFound(ref context.Versions, ref entry);
        }

        if (error == Errno.ENOENT && (_negativeLifetime > TimeSpan.Zero || context.WantsVersions))
        {
            return NodeEntry.Negative(_negativeLifetime);
        }

        return error == Errno.Success ? entry : Answer(error);
    }

    // Finds what a name means and adds one lookup to its node.
    private Errno LookupName(in Parent parent, ReadOnlySpan<byte> name, bool mayEvict, out NodeEntry entry)
    {
        entry = default;
        ulong bit = NodeTable.NameBit(name[..^1]);
        bool wasHandedOut = (Volatile.Read(ref parent.Node->Word) & bit) != 0;
        if (!parent.Mount.UsesHandles && !wasHandedOut)
        {
            return LookupByDescriptor(parent, name, bit, Origin.Found, out entry);
        }

        SyscallResult looked = Files.Statx(parent.Descriptor, name, NotFollowed, LookupMask, out StatxBuffer status);
        if (looked.IsError)
        {
            return looked.Error;
        }

        Mount? mount = _mounts.Find(status, parent.Mount);
        if (mount is null)
        {
            return LookupByDescriptor(parent, name, bit, Origin.Found, out entry);
        }

        NodeKey key = KeyOf(status, mount);
        Node* node = _nodes.Find(key);
        if (node != null && IsProven(node, mount, mayEvict) && NodeTable.TryAddLookup(node))
        {
            FillEntry(parent, node, mount, status, bit, out entry);
            return Errno.Success;
        }

        if (!mount.UsesHandles)
        {
            return LookupByDescriptor(parent, name, bit, Origin.Found, out entry);
        }

        // With a node there that is not proven the handle is to be asked for: the one that is remembered could be the same stale one.
        return node == null && mount.HasLastingNumbers && TryLookupForgotten(parent, bit, mount, status, out entry)
            ? Errno.Success
            : LookupByHandle(parent, name, bit, mount, status, out entry);
    }

    // Whether a node that statx(2) seems to have found is the very object: it has a descriptor, or was old when its handle was asked for,
    // or its handle opens one now.
    private bool IsProven(Node* node, Mount mount, bool mayEvict)
    {
        if (Volatile.Read(ref node->Descriptor) >= 0)
        {
            if (node->WasUsed == 0)
            {
                node->WasUsed = 1;
            }

            return true;
        }

        if (node->IsHandleLasting != 0)
        {
            // It gets a descriptor when it is used.
            return true;
        }

        bool isWorthIt = node->WasSeenAgain != 0 && node->HandleLength != 0 && IsWorthPinning(mount, mayEvict);
        node->WasSeenAgain = 1;
        if (!isWorthIt)
        {
            return false;
        }

        SyscallResult opened = OpenByHandle(node, mount, OpenFlags.Path | OpenFlags.CloseOnExec);
        if (opened.IsError)
        {
            return false;
        }

        if (!TryPin(node, mount, opened.Descriptor))
        {
            _ = FileIO.Close(opened.Descriptor);
        }

        return true;
    }

    private Errno LookupByHandle(
        in Parent parent, ReadOnlySpan<byte> name, ulong bit, Mount mount, in StatxBuffer status, out NodeEntry entry)
    {
        entry = default;
        // Before the handle is asked for: that the object is there now does not say how long it will be.
        bool wasOld = _remembered.WasOld(mount, status);
        SyscallResult named = Files.NameToHandleAt(
            parent.Descriptor, name, out KernelFileHandle handle, AtFlags.None);
        if (named.IsError)
        {
            if (named.Error is not (Errno.EOPNOTSUPP or Errno.EOVERFLOW))
            {
                return named.Error;
            }

            return LookupByDescriptor(parent, name, bit, Origin.Found, out entry);
        }

        // Between the two calls the name may have come to mean something else.
        if (!IsHandleOf(ref handle, status.Inode))
        {
            return LookupByDescriptor(parent, name, bit, Origin.Found, out entry);
        }

        Errno error = AddByHandle(parent, bit, mount, status, ref handle, out entry);
        if (error == Errno.Success && wasOld)
        {
            MarkLasting(entry);
        }

        return error;
    }

    // By a handle that is remembered.
    private bool TryLookupForgotten(in Parent parent, ulong bit, Mount mount, in StatxBuffer status, out NodeEntry entry)
    {
        entry = default;
        if (!_remembered.TryFind(KeyOf(status, mount), out KernelFileHandle handle) ||
            AddByHandle(parent, bit, mount, status, ref handle, out entry) != Errno.Success)
        {
            return false;
        }

        MarkLasting(entry);
        return true;
    }

    // Of what was found in this operation.
    private void MarkLasting(in NodeEntry entry)
    {
        Node* node = _nodes.At((uint)entry.NodeId.Value);
        if (node->IsHandleLasting == 0)
        {
            node->IsHandleLasting = 1;
        }
    }

    // The slow and certain way: a descriptor first, then everything from it.
    private Errno LookupByDescriptor(
        in Parent parent, ReadOnlySpan<byte> name, ulong bit, Origin origin, out NodeEntry entry)
    {
        entry = default;
        if (!TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        SyscallResult opened = Files.Openat2(parent.Descriptor, name, s_pathFlags, 0, OneComponent);
        if (opened.IsError)
        {
            _budget.Return();
            return opened.Error;
        }

        return AddByDescriptor(parent, bit, opened.Descriptor, origin, out entry);
    }

    // Takes over an O_PATH descriptor and its unit of the budget.
    private Errno AddByDescriptor(in Parent parent, ulong bit, int descriptor, Origin origin, out NodeEntry entry)
    {
        entry = default;
        Errno error = Files.Statx(descriptor, LookupMask, out StatxBuffer status).Error;
        Mount? mount = error != Errno.Success ? null : _mounts.Find(status, parent.Mount) ??
            _mounts.FindOrAdd(status, descriptor, WorkerThread.ProcessDescriptors);
        if (mount is null)
        {
            ReturnDescriptor(descriptor, wasPinned: false);
            return error == Errno.Success ? Errno.ENFILE : error;
        }

        if (origin == Origin.Made && MayKeepMade(mount) && TryAddMade(mount, status, descriptor, out Node* made))
        {
            FillEntry(parent, made, mount, status, bit, out entry);
            return Errno.Success;
        }

        KernelFileHandle handle = default;
        if (mount.UsesHandles)
        {
            SyscallResult named = Files.NameToHandleAt(descriptor, "\0"u8, out handle, AtFlags.EmptyPath);
            if (!named.IsError)
            {
                ReturnDescriptor(descriptor, wasPinned: false);
                return AddByHandle(parent, bit, mount, status, ref handle, out entry);
            }

            handle = default;
        }

        if (_options.FileHandles == InodeFileHandles.Mandatory)
        {
            ReturnDescriptor(descriptor, wasPinned: false);
            return Errno.EOPNOTSUPP;
        }

        Node* node = _nodes.FindOrAdd(KeyOf(status, mount), status.Mode, ref handle, descriptor, out bool isNew);
        if (!isNew)
        {
            ReturnDescriptor(descriptor, wasPinned: false);
            if (node == null)
            {
                return Errno.ENFILE;
            }
        }

        FillEntry(parent, node, mount, status, bit, out entry);
        return Errno.Success;
    }

    // Whether what was just made keeps a descriptor beside a handle that nobody has asked for yet.
    private bool MayKeepMade(Mount mount) =>
        mount.UsesHandles && mount.MayPin && Volatile.Read(ref _pinnedCount) < _pinned.Length && !_budget.IsNearlyUsedUp;

    // Takes over an O_PATH descriptor and its unit of the budget if it succeeds.
    private bool TryAddMade(Mount mount, in StatxBuffer status, int descriptor, out Node* node)
    {
        node = _nodes.AddMade(KeyOf(status, mount), status.Mode, descriptor);
        if (node == null)
        {
            return false;
        }

        Interlocked.Increment(ref _pinnedCount);
        EnterClock(node);
        return true;
    }

    private Errno AddByHandle(
        in Parent parent,
        ulong bit,
        Mount mount,
        in StatxBuffer status,
        ref KernelFileHandle handle,
        out NodeEntry entry)
    {
        Node* node = _nodes.FindOrAdd(KeyOf(status, mount), status.Mode, ref handle, Node.NoDescriptor, out _);
        if (node == null)
        {
            entry = default;
            return Errno.ENFILE;
        }

        FillEntry(parent, node, mount, status, bit, out entry);
        return Errno.Success;
    }

    private void FillEntry(
        in Parent parent, Node* node, Mount mount, in StatxBuffer status, ulong bit, out NodeEntry entry)
    {
        HandOut(parent.Node, bit);
        if (Volatile.Read(ref node->Descriptor) < 0)
        {
            HandOutByHandle(parent.Node, NodeTable.ShortBit(bit));
        }

        if (node->IsDirectory && _watch is { WantsDirectories: true })
        {
            WatchDirectory(node, mount);
        }

        uint generation = node->Generation;
        entry.NodeId = NodeTable.IdOf(_nodes.IndexOf(node), generation);
        entry.Generation = generation;
        entry.EntryLifetimeSeconds = _entryLifetime.Seconds;
        entry.EntryLifetimeNanoseconds = _entryLifetime.Nanoseconds;
        entry.AttributeLifetimeSeconds = _attributeLifetime.Seconds;
        entry.AttributeLifetimeNanoseconds = _attributeLifetime.Nanoseconds;
        if (_share.MappedFiles.IsEmpty)
        {
            Tell(status, out entry.Attributes);
        }
        else
        {
            StatxBuffer told = status;
            PrepareToTell(node, mount, ref told);
            Tell(told, out entry.Attributes);
        }

        entry.Attributes.Flags = MappingFlags(node, mount, entry.Attributes.Size);
        if (_announceSubmounts && mount != parent.Mount && IsDirectory(status.Mode))
        {
            entry.Attributes.Flags = FuseAttributeFlags.Submount;
        }
    }

    // Remembers in a directory that the guest knows a name in it.
    private static void HandOut(Node* directory, ulong bit)
    {
        if ((Volatile.Read(ref directory->Word) & bit) == 0)
        {
            Interlocked.Or(ref directory->Word, bit);
        }
    }

    // And that the node it means may have no descriptor.
    private static void HandOutByHandle(Node* directory, uint bit)
    {
        if ((Volatile.Read(ref Node.NamesByHandle(directory)) & bit) == 0)
        {
            Interlocked.Or(ref Node.NamesByHandle(directory), bit);
        }
    }

    private static NodeKey KeyOf(in StatxBuffer status, Mount mount) =>
        new(mount.Index, status.Inode, status.BirthTime.Seconds, status.BirthTime.Nanoseconds);

    // Whether a handle is that of an inode number, for the handles of ext4, xfs, tmpfs and btrfs (include/linux/exportfs.h).
    private static bool IsHandleOf(ref KernelFileHandle handle, ulong inode) =>
        TryGetInode(handle.Type, KernelFileHandle.BytesOf(ref handle), out ulong number) && number == inode;

    /// <summary>Whether handles of a file system tell inode numbers.</summary>
    /// <param name="descriptor">A descriptor on it.</param>
    internal static bool HasKnownHandles(int descriptor) =>
        !Files.NameToHandleAt(descriptor, "\0"u8, out KernelFileHandle handle, AtFlags.EmptyPath).IsError
        && TryGetInode(handle.Type, KernelFileHandle.BytesOf(ref handle), out _);

    /// <summary>Which inode number a handle tells.</summary>
    /// <param name="handle">The handle.</param>
    /// <param name="inode">The number.</param>
    /// <returns>False when it tells none.</returns>
    internal static bool TryGetInode(in HandleView handle, out ulong inode) => TryGetInode(handle.Type, handle.Bytes, out inode);

    private static bool TryGetInode(int type, ReadOnlySpan<byte> bytes, out ulong inode)
    {
        const int inode32 = 0x1;
        const int inode64 = 0x81;
        const int btrfs = 0x4d;
        (bool isKnown, inode) = (type, bytes.Length) switch
        {
            (inode32, 8) => (true, BinaryPrimitives.ReadUInt32LittleEndian(bytes)),
            (inode32, 12) => (true, BinaryPrimitives.ReadUInt64LittleEndian(bytes[4..])),
            (inode64, >= 12) => (true, BinaryPrimitives.ReadUInt64LittleEndian(bytes)),
            (btrfs, >= 20) => (true, BinaryPrimitives.ReadUInt64LittleEndian(bytes)),
            _ => (false, 0UL),
        };
        return isKnown;
    }

    /// <summary>How the guest has come to an object.</summary>
    private enum Origin
    {
        /// <summary>By its name.</summary>
        Found,

        /// <summary>It has made it with this request.</summary>
        Made,
    }

    /// <summary>A directory that names are looked up in.</summary>
    private readonly ref struct Parent(Node* node, Mount mount, int descriptor)
    {
        public readonly Node* Node = node;
        public readonly Mount Mount = mount;
        public readonly int Descriptor = descriptor;
    }
}
