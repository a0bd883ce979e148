using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// The nodes of one session: a slab indexed by the lower half of the node id, and a hash table over it that finds a node by
/// what statx(2) tells.
/// </summary>
/// <remarks>
/// <para>Readers take no lock. They run inside an epoch (<see cref="EpochDomain"/>), so that no slot they can see is given
/// to another object before they are done. A reader may miss a node that is being inserted or moved; whoever means to insert
/// looks again under the lock of the chain.</para>
/// <para>The hash table grows one chain at a time (linear hashing): chain b is split into b and b + 2^level. Both have the
/// same lower six bits and so the same lock.</para>
/// <code>
///   node id = generation : index          slots[index] ── Next ──> slots[...] ── Next ──> 0
///                                            ^
///   hash(mount, inode) ── buckets[b] ────────┘
/// </code>
/// <para>A lookup count goes from zero to one only in a free slot. The thread that takes it from one to zero removes the
/// node from its chain, and the slot is free once the epoch has passed.</para>
/// </remarks>
internal sealed unsafe class NodeTable : IDisposable
{
    /// <summary>Index of the root. Index zero is never used: it ends chains.</summary>
    public const uint RootIndex = 1;

    /// <summary>The most slots there can be: 1.5 GiB (arbitrary).</summary>
    public const uint MaxNodes = 1 << 24;

    private const uint StripeCount = 64;
    private const uint FirstBucketCount = 1024;

    private readonly NativeSlab<Node> _nodes;
    private readonly NativeSlab<uint> _buckets;
    private readonly NativeSlab<KernelFileHandle> _longHandles = new(MaxNodes / 16);
    private readonly Lock[] _stripes = new Lock[StripeCount];
    private readonly Lock _growth = new();
    private readonly Lock _allocation = new();
    private readonly Stack<uint> _freeLongHandles = new();
    private uint _bucketCount = FirstBucketCount;
    private uint _freeSlots;
    private readonly uint _capacity;
    private long _live;

    public NodeTable(uint capacity = MaxNodes)
    {
        _capacity = capacity;
        _nodes = new NativeSlab<Node>(capacity);
        _buckets = new NativeSlab<uint>(Math.Max(capacity, FirstBucketCount));
        for (int i = 0; i < _stripes.Length; i++)
        {
            _stripes[i] = new Lock();
        }

        for (uint i = 0; i < FirstBucketCount; i++)
        {
            if (!_buckets.TryExtend(out _))
            {
                throw new InsufficientMemoryException("There is no memory for the table of nodes.");
            }
        }

        if (!_nodes.TryExtend(out _) || !_nodes.TryExtend(out _))
        {
            throw new InsufficientMemoryException("There is no memory for the table of nodes.");
        }
    }

    /// <summary>Whether there is room for no node more, as far as can be told without trying.</summary>
    public bool IsFull => LiveCount >= _capacity - 2;

    /// <summary>How many nodes the guest holds, the root not counted.</summary>
    public long LiveCount => Volatile.Read(ref _live);

    /// <summary>One more than the highest index ever used.</summary>
    public uint SlotCount => _nodes.Count;

    /// <summary>Bytes of native memory in use.</summary>
    public long CommittedBytes => _nodes.CommittedBytes + _buckets.CommittedBytes + _longHandles.CommittedBytes;

    public Node* Root => _nodes.At(RootIndex);

    public Node* At(uint index) => _nodes.At(index);

    public uint IndexOf(Node* node) => _nodes.IndexOf(node);

    public static NodeId IdOf(uint index, uint generation) => new(((ulong)generation << 32) | index);

    /// <summary>The bit of a directory's <see cref="Node.Word"/> that stands for a name.</summary>
    /// <param name="name">The name.</param>
    public static ulong NameBit(ReadOnlySpan<byte> name)
    {
        // FNV-1a: short names, and only six bits are needed.
        ulong hash = 14695981039346656037;
        foreach (byte value in name)
        {
            hash = (hash ^ value) * 1099511628211;
        }

        return 1UL << (int)((hash ^ (hash >> 32)) & 63);
    }

    /// <summary>The bit of a directory's <see cref="Node.NamesByHandle"/> that stands for a name.</summary>
    /// <param name="bit">Its <see cref="NameBit"/>.</param>
    public static uint ShortBit(ulong bit) => (uint)(bit | (bit >> 32));

    /// <summary>Finds the node of an id that a guest sent. Inside an epoch.</summary>
    /// <param name="id">The id; may be anything.</param>
    /// <returns>The node, or null.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public Node* Resolve(NodeId id)
    {
        uint index = (uint)id.Value;
        if (index - 1 >= _nodes.Count - 1)
        {
            return null;
        }

        Node* node = _nodes.At(index);
        return Volatile.Read(ref node->Generation) == (uint)(id.Value >> 32) && Volatile.Read(ref node->LookupCount) > 0
            ? node
            : null;
    }

    /// <summary>Finds a live node by key, one with a descriptor if there are several. Inside an epoch.</summary>
    /// <param name="key">The key.</param>
    /// <returns>The node, or null.</returns>
    public Node* Find(in NodeKey key)
    {
        Node* found = null;
        for (uint index = Volatile.Read(ref *Bucket(key.Hash)); index != 0;)
        {
            Node* node = _nodes.At(index);
            if (key.Matches(node) && Volatile.Read(ref node->LookupCount) > 0)
            {
                found = node;
                if (Volatile.Read(ref node->Descriptor) >= 0)
                {
                    break;
                }
            }

            index = Volatile.Read(ref node->Next);
        }

        return found;
    }

    /// <summary>Finds live nodes by inode number alone: the object, and perhaps others that had the number before.</summary>
    /// <param name="mount">The mount.</param>
    /// <param name="inode">The inode number.</param>
    /// <param name="found">Where their ids go.</param>
    /// <returns>How many were found, as many as there is room for. Inside an epoch.</returns>
    public int FindByInode(ushort mount, ulong inode, Span<NodeId> found)
    {
        int count = 0;
        Node* root = Root;
        if (root->Inode == inode && root->Mount == mount && count < found.Length)
        {
            // It is in no chain.
            found[count++] = NodeId.Root;
        }

        for (uint index = Volatile.Read(ref *Bucket(NodeKey.HashOf(mount, inode))); index != 0 && count < found.Length;)
        {
            Node* node = _nodes.At(index);
            uint generation = Volatile.Read(ref node->Generation);
            if (node->Inode == inode && node->Mount == mount && Volatile.Read(ref node->LookupCount) > 0)
            {
                found[count++] = IdOf(index, generation);
            }

            index = Volatile.Read(ref node->Next);
        }

        return count;
    }

    /// <summary>Adds one to the lookup count of a node, unless it has just gone to zero.</summary>
    /// <param name="node">The node.</param>
    public static bool TryAddLookup(Node* node)
    {
        long count = Volatile.Read(ref node->LookupCount);
        while (count > 0)
        {
            long seen = Interlocked.CompareExchange(ref node->LookupCount, count + 1, count);
            if (seen == count)
            {
                return true;
            }

            count = seen;
        }

        return false;
    }

    /// <summary>Finds the node of a host object, or makes it; one lookup is added. Inside an epoch.</summary>
    /// <param name="key">The object.</param>
    /// <param name="mode">Its type and permissions.</param>
    /// <param name="handle">Its file handle; an empty one when it is to live by descriptor.</param>
    /// <param name="descriptor">
    /// An O_PATH descriptor, which a new node takes over; <see cref="Node.NoDescriptor"/> with a handle.
    /// </param>
    /// <param name="isNew">Whether the node was made.</param>
    /// <returns>The node; null when there is no room.</returns>
    public Node* FindOrAdd(
        in NodeKey key, ushort mode, ref KernelFileHandle handle, int descriptor, out bool isNew)
    {
        uint hash = key.Hash;
        Node* node;
        isNew = false;
        lock (_stripes[hash % StripeCount])
        {
            uint* bucket = Bucket(hash);
            for (uint index = *bucket; index != 0; index = node->Next)
            {
                node = _nodes.At(index);
                if (key.Matches(node) && IsSameObject(node, ref handle) && TryAddLookup(node))
                {
                    return node;
                }
            }

            node = Insert(bucket, key, mode, ref handle, descriptor);
            if (node == null)
            {
                return null;
            }
        }

        isNew = true;
        CountNew();
        return node;
    }

    /// <summary>
    /// Makes the node of an object that was just made, and whose handle is asked for when it is needed. Inside an epoch.
    /// </summary>
    /// <param name="key">The object.</param>
    /// <param name="mode">Its type and permissions.</param>
    /// <param name="descriptor">An O_PATH descriptor of it, which the node takes over.</param>
    /// <returns>
    /// The node; null when there is no room, and when a node is there already that may be of the same object: only a handle can tell.
    /// </returns>
    public Node* AddMade(in NodeKey key, ushort mode, int descriptor)
    {
        var handle = new KernelFileHandle { Type = Node.LateHandle };
        uint hash = key.Hash;
        Node* node;
        lock (_stripes[hash % StripeCount])
        {
            uint* bucket = Bucket(hash);
            for (uint index = *bucket; index != 0; index = node->Next)
            {
                node = _nodes.At(index);
                if (key.Matches(node) && Volatile.Read(ref node->LookupCount) > 0)
                {
                    return null;
                }
            }

            node = Insert(bucket, key, mode, ref handle, descriptor);
        }

        if (node != null)
        {
            CountNew();
        }

        return node;
    }

    /// <summary>Gives a node its late handle. Inside an epoch, under the lock of those who take descriptors away.</summary>
    /// <param name="node">A node that is alive.</param>
    /// <param name="handle">The handle.</param>
    /// <returns>False when it is too long for that.</returns>
    public static bool TrySetHandle(Node* node, ref KernelFileHandle handle)
    {
        if (handle.Length is 0 or > Node.InlineHandleLength)
        {
            return false;
        }

        KernelFileHandle.BytesOf(ref handle).CopyTo(new Span<byte>(node->Handle, Node.InlineHandleLength));
        node->HandleType = handle.Type;
        // Pairs with the reads of who finds no descriptor, which is taken away after this.
        Volatile.Write(ref node->HandleLength, (byte)handle.Length);
        return true;
    }

    /// <summary>Takes lookups away. Inside an epoch.</summary>
    /// <param name="node">The node; not the root.</param>
    /// <param name="lookupCount">How many.</param>
    /// <returns>Whether the node is gone: the caller frees its slot when the epoch has passed.</returns>
    public bool RemoveLookups(Node* node, ulong lookupCount)
    {
        long count = Volatile.Read(ref node->LookupCount);
        while (count > 0)
        {
            long left = lookupCount >= (ulong)count ? 0 : count - (long)lookupCount;
            long seen = Interlocked.CompareExchange(ref node->LookupCount, left, count);
            if (seen == count)
            {
                if (left == 0)
                {
                    Unlink(node);
                }

                return left == 0;
            }

            count = seen;
        }

        return false;
    }

    /// <summary>Makes a slot available again. Its epoch has passed, and its descriptor is closed or given away.</summary>
    /// <param name="index">The slot.</param>
    public void Free(uint index)
    {
        Node* node = _nodes.At(index);
        lock (_allocation)
        {
            if (node->HandleLength > Node.InlineHandleLength)
            {
                _freeLongHandles.Push(*(uint*)node->Handle);
            }

            // From now on the old id is unknown even if the slot is in use again.
            Volatile.Write(ref node->Generation, node->Generation + 1);
            node->Next = _freeSlots;
            _freeSlots = index;
        }
    }

    /// <summary>Copies a node's file handle.</summary>
    /// <param name="node">A node with a handle.</param>
    /// <param name="handle">The copy.</param>
    public void CopyHandle(Node* node, out KernelFileHandle handle)
    {
        Unsafe.SkipInit(out handle);
        handle.Set(node->HandleType, HandleOf(node));
    }

    /// <summary>Keeps the handle of a node that is gone, if it may be. The node's slot is not free yet.</summary>
    /// <param name="node">The node.</param>
    /// <param name="remembered">Where it is kept.</param>
    public void Remember(Node* node, RememberedHandles remembered)
    {
        if (node->IsHandleLasting != 0)
        {
            remembered.Add(node->Key, node->HandleType, HandleOf(node));
        }
    }

    /// <summary>Whether a node has this file handle.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    public bool HasHandle(Node* node, ref KernelFileHandle handle) =>
        node->HandleLength == handle.Length && node->HandleType == handle.Type &&
        HandleOf(node).SequenceEqual(KernelFileHandle.BytesOf(ref handle));

    /// <inheritdoc/>
    public void Dispose()
    {
        _nodes.Dispose();
        _buckets.Dispose();
        _longHandles.Dispose();
    }

    // With a handle: the same handle. Without: the other node's descriptor keeps its inode number from being used again. The
    // descriptor is looked at first: one whose handle was late loses it only after it has its handle.
    private bool IsSameObject(Node* node, ref KernelFileHandle handle)
    {
        bool hasDescriptor = Volatile.Read(ref node->Descriptor) >= 0;
        return handle.Length == 0 || (hasDescriptor && Volatile.Read(ref node->HandleLength) == 0)
            ? hasDescriptor
            : HasHandle(node, ref handle);
    }

    // Under the lock of the chain.
    private Node* Insert(uint* bucket, in NodeKey key, ushort mode, ref KernelFileHandle handle, int descriptor)
    {
        Node* node = Allocate(key, mode, ref handle, descriptor);
        if (node != null)
        {
            node->Next = *bucket;
            // Pairs with the read in Find: whoever sees the index sees the node filled in.
            Volatile.Write(ref *bucket, _nodes.IndexOf(node));
        }

        return node;
    }

    private void CountNew()
    {
        if (Interlocked.Increment(ref _live) > Volatile.Read(ref _bucketCount))
        {
            Grow();
        }
    }

    private ReadOnlySpan<byte> HandleOf(Node* node) => node->HandleLength <= Node.InlineHandleLength
        ? new ReadOnlySpan<byte>(node->Handle, node->HandleLength)
        : KernelFileHandle.BytesOf(ref *_longHandles.At(*(uint*)node->Handle));

    private uint* Bucket(uint hash) => _buckets.At(BucketIndex(hash, Volatile.Read(ref _bucketCount)));

    private static uint BucketIndex(uint hash, uint count)
    {
        uint mask = uint.MaxValue >> System.Numerics.BitOperations.LeadingZeroCount(count);
        uint index = hash & mask;
        return index < count ? index : hash & (mask >> 1);
    }

    private Node* Allocate(in NodeKey key, ushort mode, ref KernelFileHandle handle, int descriptor)
    {
        Node* node;
        lock (_allocation)
        {
            uint index = _freeSlots;
            uint longHandle = 0;
            if (handle.Length > Node.InlineHandleLength && !_freeLongHandles.TryPop(out longHandle) &&
                !_longHandles.TryExtend(out longHandle))
            {
                return null;
            }

            if (index != 0)
            {
                _freeSlots = _nodes.At(index)->Next;
            }
            else if (!_nodes.TryExtend(out index))
            {
                if (handle.Length > Node.InlineHandleLength)
                {
                    _freeLongHandles.Push(longHandle);
                }

                return null;
            }

            node = _nodes.At(index);
            if (handle.Length > Node.InlineHandleLength)
            {
                *(uint*)node->Handle = longHandle;
                _longHandles.At(longHandle)->Set(handle.Type, KernelFileHandle.BytesOf(ref handle));
            }
        }

        node->Inode = key.Inode;
        node->BirthSeconds = key.BirthSeconds;
        node->BirthNanoseconds = key.BirthNanoseconds;
        node->Mount = key.Mount;
        node->Mode = mode;
        node->Descriptor = descriptor;
        node->WasSeenAgain = 0;
        node->WasUsed = 0;
        node->IsWatched = 0;
        node->Word = 0;
        node->DaxSlots = 0;
        node->VersionWord = 0;
        node->IsHandleLasting = 0;
        node->HandleType = handle.Type;
        node->HandleLength = (byte)handle.Length;
        if (handle.Length <= Node.InlineHandleLength)
        {
            KernelFileHandle.BytesOf(ref handle).CopyTo(new Span<byte>(node->Handle, Node.InlineHandleLength));
        }

        Volatile.Write(ref node->LookupCount, 1);
        return node;
    }

    // The node keeps its Next, so that a reader standing on it finds the rest of the chain.
    private void Unlink(Node* node)
    {
        uint hash = NodeKey.HashOf(node->Mount, node->Inode);
        uint index = _nodes.IndexOf(node);
        lock (_stripes[hash % StripeCount])
        {
            uint* link = Bucket(hash);
            while (*link != index)
            {
                link = &_nodes.At(*link)->Next;
            }

            Volatile.Write(ref *link, node->Next);
        }

        Interlocked.Decrement(ref _live);
    }

    // Splits one chain. A reader walking it meanwhile may end up in the other half and miss nodes, but always reaches an
    // end: moved nodes only ever point to moved ones.
    private void Grow()
    {
        if (!_growth.TryEnter())
        {
            return;
        }

        try
        {
            uint count = _bucketCount;
            if (!_buckets.TryExtend(out uint added))
            {
                return;
            }

            uint split = added & (uint.MaxValue >> (System.Numerics.BitOperations.LeadingZeroCount(added) + 1));
            lock (_stripes[split % StripeCount])
            {
                uint* from = _buckets.At(split);
                uint* to = _buckets.At(added);
                uint next = *from;
                uint stays = 0;
                uint moves = 0;
                Volatile.Write(ref _bucketCount, count + 1);
                while (next != 0)
                {
                    Node* node = _nodes.At(next);
                    uint after = node->Next;
                    bool isMoved = BucketIndex(NodeKey.HashOf(node->Mount, node->Inode), count + 1) == added;
                    Volatile.Write(ref node->Next, isMoved ? moves : stays);
                    if (isMoved)
                    {
                        moves = next;
                    }
                    else
                    {
                        stays = next;
                    }

                    next = after;
                }

                Volatile.Write(ref *from, stays);
                Volatile.Write(ref *to, moves);
            }
        }
        finally
        {
            _growth.Exit();
        }
    }
}
