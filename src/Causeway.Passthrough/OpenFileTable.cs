using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// The open files of one session. A request takes a use of a file, and the descriptor is closed by whoever comes last:
/// RELEASE, or the request that still used it.
/// </summary>
internal sealed unsafe class OpenFileTable : IDisposable
{
    private const ulong OpenBit = 1UL << 31;
    private const ulong UsersMask = OpenBit - 1;
    private const int GenerationShift = 32;

    // Arbitrary: more than any descriptor limit.
    private const uint MaxFiles = 1 << 22;

    private readonly NativeSlab<OpenFile> _files = new(MaxFiles);
    private readonly DescriptorBudget _budget;
    private readonly long _maxLeftoverBytes;
    private readonly SessionVersions? _versions;
    private readonly Lock _allocation = new();
    private uint _freeSlots;
    private long _leftoverBytes;
    private long _open;

    public OpenFileTable(DescriptorBudget budget, long maxLeftoverBytes, SessionVersions? versions = null)
    {
        _budget = budget;
        _maxLeftoverBytes = maxLeftoverBytes;
        _versions = versions;
        // Index zero is never used: no handle is zero.
        _ = _files.TryExtend(out _);
    }

    /// <summary>How many files the guest has open.</summary>
    public long OpenCount => Volatile.Read(ref _open);

    /// <summary>Adds an open file.</summary>
    /// <param name="node">The node it was opened from.</param>
    /// <param name="descriptor">The descriptor; owned by the table from now on. One unit of the budget goes with it.</param>
    /// <param name="flags">What is known about it.</param>
    /// <param name="mount">The place of its mount.</param>
    /// <param name="inode">Its inode number if the version table is to know of it; zero otherwise.</param>
    /// <returns>Its number; zero when there is no room, and then the descriptor stays the caller's.</returns>
    public HandleId Add(NodeId node, int descriptor, OpenFileFlags flags, ushort mount, ulong inode)
    {
        uint index;
        lock (_allocation)
        {
            index = _freeSlots;
            if (index != 0)
            {
                _freeSlots = _files.At(index)->Next;
            }
            else if (!_files.TryExtend(out index))
            {
                return default;
            }
        }

        OpenFile* file = _files.At(index);
        file->NodeId = node.Value;
        file->Descriptor = descriptor;
        file->Flags = flags;
        file->Position = 0;
        file->Leftover = null;
        file->LeftoverLength = 0;
        file->Busy = 0;
        file->Mount = mount;
        file->Warmth = OpenFile.Unknown;
        file->PlainReads = (flags & (OpenFileFlags.MayAsk | OpenFileFlags.Direct)) != 0 ? 0 : int.MaxValue;
        file->HasRecordLocks = 0;
        file->HasFlock = 0;
        file->Inode = inode;
        file->VersionWord = 0;
        file->LeftoverVersion = 0;
        ulong generation = file->State >> GenerationShift;
        Volatile.Write(ref file->State, (generation << GenerationShift) | OpenBit);
        Interlocked.Increment(ref _open);
        return new HandleId((generation << GenerationShift) | index);
    }

    /// <summary>The META word of an open file that is in use, which gets words when they are first needed; zero for none.</summary>
    /// <param name="file">The file.</param>
    public uint WordOf(OpenFile* file)
    {
        uint word = Volatile.Read(ref file->VersionWord);
        if (word != 0 || file->Inode == 0)
        {
            return word;
        }

        word = _versions!.Acquire(file->Inode);
        if (Interlocked.CompareExchange(ref file->VersionWord, word, 0) != 0)
        {
            _versions.Release(file->Inode);
        }

        return word;
    }

    /// <summary>Takes up a use of an open file, ended by <see cref="EndUse"/>.</summary>
    /// <param name="handle">The number a guest sent; may be anything.</param>
    /// <param name="node">The node it must belong to.</param>
    /// <returns>The file, or null.</returns>
    public OpenFile* Use(HandleId handle, NodeId node)
    {
        uint index = (uint)handle.Value;
        if (index - 1 >= _files.Count - 1)
        {
            return null;
        }

        OpenFile* file = _files.At(index);
        ulong expected = ((handle.Value >> GenerationShift) << GenerationShift) | OpenBit;
        ulong state = Volatile.Read(ref file->State);
        while ((state & ~UsersMask) == expected)
        {
            ulong seen = Interlocked.CompareExchange(ref file->State, state + 1, state);
            if (seen == state)
            {
                if (file->NodeId == node.Value)
                {
                    return file;
                }

                EndUse(file);
                return null;
            }

            state = seen;
        }

        return null;
    }

    /// <summary>The request does not use the file any more.</summary>
    /// <param name="file">The file.</param>
    public void EndUse(OpenFile* file)
    {
        ulong state = Interlocked.Decrement(ref file->State);
        if ((state & (OpenBit | UsersMask)) == 0)
        {
            Close(file);
        }
    }

    /// <summary>The guest closes a file. The descriptor goes with its last user.</summary>
    /// <param name="handle">The number a guest sent.</param>
    /// <param name="node">The node it must belong to.</param>
    /// <returns>False when there is no such file.</returns>
    public bool Release(HandleId handle, NodeId node)
    {
        OpenFile* file = Use(handle, node);
        return file != null && ReleaseUsed(file);
    }

    /// <summary>Closes everything.</summary>
    public void ReleaseAll()
    {
        uint count = _files.Count;
        for (uint index = 1; index < count; index++)
        {
            OpenFile* file = _files.At(index);
            ulong state = Volatile.Read(ref file->State);
            while ((state & OpenBit) != 0)
            {
                ulong seen = Interlocked.CompareExchange(ref file->State, state + 1, state);
                if (seen == state)
                {
                    _ = ReleaseUsed(file);
                    break;
                }

                state = seen;
            }
        }
    }

    /// <summary>Keeps entries of a directory for its next READDIR. The caller holds <see cref="OpenFile.Busy"/>.</summary>
    /// <param name="file">The directory.</param>
    /// <param name="entries">The entries.</param>
    /// <param name="cookie">The cookie they continue from.</param>
    public void KeepLeftover(OpenFile* file, ReadOnlySpan<byte> entries, long cookie)
    {
        if (Interlocked.Add(ref _leftoverBytes, entries.Length) > _maxLeftoverBytes)
        {
            Interlocked.Add(ref _leftoverBytes, -entries.Length);
            return;
        }

        file->Leftover = (byte*)NativeMemory.Alloc((nuint)entries.Length);
        file->LeftoverLength = entries.Length;
        file->LeftoverCookie = cookie;
        entries.CopyTo(new Span<byte>(file->Leftover, entries.Length));
    }

    /// <summary>Forgets the kept entries of a directory.</summary>
    /// <param name="file">The directory.</param>
    public void DropLeftover(OpenFile* file)
    {
        if (file->Leftover != null)
        {
            NativeMemory.Free(file->Leftover);
            Interlocked.Add(ref _leftoverBytes, -file->LeftoverLength);
            file->Leftover = null;
            file->LeftoverLength = 0;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        ReleaseAll();
        _files.Dispose();
    }

    /// <summary>The guest closes a file. The descriptor goes with its last user.</summary>
    /// <param name="file">The file; the caller holds a use, which ends here.</param>
    /// <param name="spares">Where its descriptor goes if the caller is the last user and it had no locks; null to close it.</param>
    /// <returns>False when it was closed before.</returns>
    public bool ReleaseUsed(OpenFile* file, SpareFiles? spares = null)
    {
        ulong state = Volatile.Read(ref file->State);
        while (true)
        {
            bool wasOpen = (state & OpenBit) != 0;
            ulong next = (state & ~OpenBit) - 1;
            ulong seen = Interlocked.CompareExchange(ref file->State, next, state);
            if (seen == state)
            {
                if ((next & UsersMask) == 0)
                {
                    Close(file, spares);
                }

                return wasOpen;
            }

            state = seen;
        }
    }

    private void Close(OpenFile* file, SpareFiles? spares = null)
    {
        DropLeftover(file);
        if (spares is not null && file->HasFlock == 0 && file->HasRecordLocks == 0)
        {
            spares.Keep((uint)file->NodeId, file->Descriptor);
        }
        else
        {
            _ = FileIO.Close(file->Descriptor);
            _budget.Return();
        }

        if (file->VersionWord != 0)
        {
            _versions!.Release(file->Inode);
        }

        Interlocked.Decrement(ref _open);
        lock (_allocation)
        {
            // The next generation; nobody uses the slot and it is not open.
            Volatile.Write(ref file->State, ((file->State >> GenerationShift) + 1) << GenerationShift);
            file->Next = _freeSlots;
            _freeSlots = _files.IndexOf(file);
        }
    }
}
