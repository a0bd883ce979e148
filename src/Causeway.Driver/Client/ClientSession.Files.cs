using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>Opening files and listing directories.</content>
internal sealed partial class ClientSession
{
    // O_* of x86-64, arm64 and riscv64 that are the same there.
    private const uint OpenCreate = 0x40;
    private const uint OpenExclusive = 0x80;
    private const uint OpenTruncate = 0x200;
    private const uint OpenAppend = 0x400;

    // Bytes of one READDIRPLUS: some 300 entries (arbitrary).
    private const int ListingBytes = 64 << 10;

    internal async ValueTask<VirtioFsFile> OpenFileAsync(
        string path, OpenFileOptions options, CancellationToken cancellationToken)
    {
        uint flags = options.Access switch
        {
            FileAccess.Read => 0u,
            FileAccess.Write => 1u,
            _ => 2u,
        };
        flags |= options.IsAppending ? OpenAppend : 0;
        return options.Mode is FileMode.Open or FileMode.Truncate
            ? await OpenExistingAsync(
                path, flags | (options.Mode == FileMode.Truncate ? OpenTruncate : 0), cancellationToken).ConfigureAwait(false)
            : await OpenOrCreateAsync(path, flags, options, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Opens a node. The file takes over one of its users.</summary>
    internal async ValueTask<VirtioFsFile> OpenNodeAsync(
        CachedNode node, string path, uint flags, CancellationToken cancellationToken)
    {
        // The kernel opens pipes and devices itself; a daemon must not be made to.
        Check(
            node.Kind switch { FileKind.File => Errno.Success, FileKind.Directory => Errno.EISDIR, _ => Errno.ENXIO },
            "open",
            path);

        // A device that has not granted ATOMIC_O_TRUNC would ignore the flag.
        bool isCutApart = (flags & OpenTruncate) != 0 && !Messages.Features.HasFlag(FuseFeatures.AtomicOTrunc);
        uint sent = isCutApart ? flags & ~OpenTruncate : flags;
        FuseOpenOut open = Check(
            await Messages.OpenAsync(FuseOpcode.Open, node.Id, sent, cancellationToken).ConfigureAwait(false), "open", path);
        VirtioFsFile file = Opened(node, path, flags, open);
        if (isCutApart)
        {
            try
            {
                await file.SetLengthAsync(0, cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                // The caller gives the user back that it has lent.
                NodeCache.Use(node);
                await file.DisposeAsync().ConfigureAwait(false);
                throw;
            }
        }

        return file;
    }

    internal async IAsyncEnumerable<DirectoryItem> EnumerateAsync(
        string path, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        if (Nodes.IsCoherent)
        {
            CachedNode known = await ByPathAsync(() => WalkAsync("opendir", path, LinkHandling.Follow, cancellationToken))
                .ConfigureAwait(false);
            try
            {
                if (known.Listing is { } kept && Nodes.Holds(kept.Proof) && IsWorthRefreshing(known, kept))
                {
                    foreach (DirectoryItem item in kept.Items)
                    {
                        cancellationToken.ThrowIfCancellationRequested();
                        yield return await RefreshAsync(known, item, path, cancellationToken).ConfigureAwait(false);
                    }

                    yield break;
                }
            }
            finally
            {
                Nodes.Release(known);
            }
        }

        (CachedNode node, HandleId handle) = await ByPathAsync(() => OpenDirectoryAsync(path, cancellationToken))
            .ConfigureAwait(false);
        try
        {
            try
            {
                ulong cookie = 0;
                List<DirectoryItem>? all = Nodes.IsCoherent ? [] : null;
                VersionProof? proof = null;
                while (true)
                {
                    ReplyNote note = Nodes.Note();
                    Listing listing = await ListAsync(node, handle, cookie, path, note, cancellationToken)
                        .ConfigureAwait(false);

                    // A listing is one only if nothing has changed between its first reply and its last.
                    proof ??= note.Content;
                    if (proof != note.Content || all?.Count > _options.MaxCachedNames)
                    {
                        all = null;
                    }

                    if (listing.Next is not { } next)
                    {
                        break;
                    }

                    foreach (DirectoryItem item in listing.Items)
                    {
                        cancellationToken.ThrowIfCancellationRequested();
                        yield return item;
                    }

                    all?.AddRange(listing.Items);
                    cookie = next;
                }

                if (all is not null)
                {
                    Nodes.LearnListing(node, [.. all], proof.Value);
                }
            }
            finally
            {
                // Not cancelled with the listing: the handle would stay open.
                await Messages.CallAsync(
                    new(FuseOpcode.ReleaseDir, node.Id), new FuseReleaseIn { Handle = handle }, default, default)
                    .ConfigureAwait(false);
            }
        }
        finally
        {
            Nodes.Release(node);
        }
    }

    /// <summary>
    /// Whether to take what is kept of a listing, and ask for the attributes that are missing one by one, instead of listing anew,
    /// which brings some 300 at once.
    /// </summary>
    private bool IsWorthRefreshing(CachedNode directory, KnownListing listing)
    {
        int missing = 0;
        foreach (DirectoryItem item in listing.Items)
        {
            missing += item.Status is null || Nodes.IsKnown(directory, item.Name) ? 0 : 1;
        }

        // Arbitrary: as much work as a listing, about.
        return missing <= 4 + (listing.Items.Length / 64);
    }

    /// <summary>An entry of a listing that was kept, with what its attributes are now.</summary>
    private async ValueTask<DirectoryItem> RefreshAsync(
        CachedNode directory, DirectoryItem item, string path, CancellationToken cancellationToken)
    {
        if (item.Status is null)
        {
            return item;
        }

        try
        {
            CachedNode node = await LookupAsync("readdir", directory, item.Name, path, cancellationToken)
                .ConfigureAwait(false);
            try
            {
                FileStatus status = await GetStatusAsync(node, path, cancellationToken).ConfigureAwait(false);
                return item with { Status = status };
            }
            finally
            {
                Nodes.Release(node);
            }
        }
        catch (VirtioFsException)
        {
            // It has gone since the listing was checked.
            return item with { Status = null };
        }
    }

    private async ValueTask<(CachedNode Node, HandleId Handle)> OpenDirectoryAsync(
        string path, CancellationToken cancellationToken)
    {
        CachedNode node = await WalkAsync("opendir", path, LinkHandling.Follow, cancellationToken).ConfigureAwait(false);
        try
        {
            Check(node.Kind == FileKind.Directory ? Errno.Success : Errno.ENOTDIR, "opendir", path);
            FuseOpenOut open = Check(
                await Messages.OpenAsync(FuseOpcode.OpenDir, node.Id, 0, cancellationToken).ConfigureAwait(false),
                "opendir",
                path);
            return (node, open.Handle);
        }
        catch
        {
            Nodes.Release(node);
            throw;
        }
    }

    private async ValueTask<VirtioFsFile> OpenExistingAsync(
        string path, uint flags, CancellationToken cancellationToken)
    {
        CachedNode node = await WalkAsync("open", path, LinkHandling.Follow, cancellationToken).ConfigureAwait(false);
        try
        {
            return await OpenNodeAsync(node, path, flags, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            Nodes.Release(node);
            throw;
        }
    }

    private async ValueTask<VirtioFsFile> OpenOrCreateAsync(
        string path, uint flags, OpenFileOptions options, CancellationToken cancellationToken)
    {
        flags |= options.Mode == FileMode.Create ? OpenTruncate : 0;
        (CachedNode parent, string name) = await WalkToParentAsync("open", path, cancellationToken).ConfigureAwait(false);
        try
        {
            if (options.Mode != FileMode.CreateNew)
            {
                // CREATE would open an existing file as well, but not where a symbolic link leads.
                try
                {
                    return await OpenExistingAsync(path, flags, cancellationToken).ConfigureAwait(false);
                }
                catch (VirtioFsException exception) when (exception.Error == Errno.ENOENT)
                {
                    // It is made below.
                }
            }

            Check(new FuseMessages.Names(name).Check(), "create", path);
            ReplyNote note = Nodes.Note();
            FuseCreateOut created = Check(
                await Messages.CreateAsync(
                    new(FuseOpcode.Create, parent.Id, note),
                    name,
                    new FuseCreateIn
                    {
                        Flags = flags | OpenCreate | (options.Mode == FileMode.CreateNew ? OpenExclusive : 0),
                        Mode = 0x8000 | (options.Permissions & 0xFFF),
                    },
                    cancellationToken).ConfigureAwait(false),
                "create",
                path);
            CachedNode node = Nodes.Learn(created.Entry, note.Tags, parent, name, note);
            Nodes.ForgetAttributes(parent);

            // The attributes in the reply are those after truncating.
            return Opened(node, path, flags & ~OpenTruncate, created.Open);
        }
        finally
        {
            Nodes.Release(parent);
        }
    }

    /// <summary>TMPFILE.</summary>
    internal async ValueTask<VirtioFsFile> CreateTemporaryFileAsync(
        string directory, FileAccess access, uint permissions, CancellationToken cancellationToken)
    {
        CachedNode parent = await WalkAsync("tmpfile", directory, LinkHandling.Follow, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            Check(parent.Kind == FileKind.Directory ? Errno.Success : Errno.ENOTDIR, "tmpfile", directory);
            ReplyNote note = Nodes.Note();
            uint flags = access == FileAccess.Write ? 1u : 2u;

            // The name stands for nothing; "/" is Linux's.
            FuseCreateOut created = Check(
                await Messages.CreateAsync(
                    new(FuseOpcode.Tmpfile, parent.Id, note),
                    "/",
                    new FuseCreateIn { Flags = flags, Mode = 0x8000 | (permissions & 0xFFF) },
                    cancellationToken).ConfigureAwait(false),
                "tmpfile",
                directory);
            return Opened(
                Nodes.Learn(created.Entry, note.Tags, parent, name: null, note), directory, flags, created.Open);
        }
        finally
        {
            Nodes.Release(parent);
        }
    }

    private VirtioFsFile Opened(CachedNode node, string path, uint flags, FuseOpenOut open)
    {
        // Decided when the first one opens it, and then kept: the others see what this one has cached, or stored.
        lock (node)
        {
            if (Nodes.CountOpen(node, 1) == 1 && Window is not null && IsMapped(node))
            {
                node.Mapped ??= new MappedNode(node);
            }
        }

        FileData? data = null;
        if (CachesData)
        {
            lock (node)
            {
                data = node.Data ??= new FileData(node);
            }

            if (_options.Cache == CacheMode.Auto || (flags & OpenTruncate) != 0)
            {
                // Close-to-open: who opens sees what others have closed.
                Data.Drop(data, 0, long.MaxValue);
            }
        }

        if ((flags & OpenTruncate) != 0)
        {
            Nodes.ForgetAttributes(node);
        }

        return new VirtioFsFile(this, node, data, new VirtioFsFile.Opening(path, flags, open.Handle));
    }

    private bool IsMapped(CachedNode node) =>
        _options.Dax == DaxMode.Always || (node.Attributes.Flags & FuseAttributeFlags.Dax) != 0;

    /// <summary>The last closing of a file ends what is cached of it, save with <see cref="CacheMode.Always"/>.</summary>
    internal void Closed(CachedNode node)
    {
        if (Nodes.CountOpen(node, -1) == 0 && _options.Cache == CacheMode.Auto && node.Data is { } data)
        {
            Data.Drop(data, 0, long.MaxValue);
        }

        Nodes.Release(node);
    }

    private async ValueTask<Listing> ListAsync(
        CachedNode node, HandleId handle, ulong cookie, string path, ReplyNote note, CancellationToken cancellationToken)
    {
        bool isPlus = Messages.Features.HasFlag(FuseFeatures.DoReadDirPlus);
        var target = new FuseMessages.Target(isPlus ? FuseOpcode.ReadDirPlus : FuseOpcode.ReadDir, node.Id, note);
        GuestBuffer buffer = await Transport.RentBufferAsync(cancellationToken).ConfigureAwait(false);
        byte[] reply;
        try
        {
            int size = Math.Min(ListingBytes, Messages.MaxRead);
            Result<int> read = await Messages.ReadAsync(
                target,
                new FuseReadIn { Handle = handle, Offset = cookie },
                new GuestPiece(buffer, 0, size),
                cancellationToken).ConfigureAwait(false);
            if (read.Error == Errno.EINTR)
            {
                cancellationToken.ThrowIfCancellationRequested();
            }

            int length = Check(read, "readdir", path);
            reply = buffer.Span[..length].ToArray();
        }
        finally
        {
            buffer.Return();
        }

        return reply.Length == 0 ? default : Parse(target, reply, new ListingPosition(node, cookie, note));
    }

    /// <summary>
    /// Takes a listing apart: fuse_dirent is ino 8, off 8, namelen 4, type 4, name, padded to 8; fuse_direntplus has the
    /// entry before, and before that its tags in sessions with a version table. Every node in it has a lookup more, whatever is
    /// wrong with the rest.
    /// </summary>
    private Listing Parse(FuseMessages.Target target, ReadOnlySpan<byte> reply, ListingPosition position)
    {
        const int Fixed = 24;
        int tagSize = target.Opcode == FuseOpcode.ReadDirPlus && Nodes.IsCoherent ? FuseVersionTags.Size : 0;
        int entrySize = target.Opcode == FuseOpcode.ReadDirPlus ? tagSize + Unsafe.SizeOf<NodeEntry>() : 0;
        var items = new List<DirectoryItem>();
        ulong next = position.Cookie;
        while (!reply.IsEmpty)
        {
            uint nameLength = reply.Length >= entrySize + Fixed
                ? MemoryMarshal.Read<uint>(reply[(entrySize + 16)..])
                : uint.MaxValue;
            if (nameLength is 0 or > 255 || reply.Length < entrySize + Fixed + nameLength)
            {
                throw FuseMessages.Malformed(target);
            }

            ReadOnlySpan<byte> name = reply.Slice(entrySize + Fixed, (int)nameLength);
            if (name.ContainsAny((byte)0, (byte)'/'))
            {
                throw FuseMessages.Malformed(target);
            }

            ulong inode = MemoryMarshal.Read<ulong>(reply[entrySize..]);
            next = MemoryMarshal.Read<ulong>(reply[(entrySize + 8)..]);
            uint type = MemoryMarshal.Read<uint>(reply[(entrySize + 20)..]);
            if (!name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8))
            {
                string text = Encoding.UTF8.GetString(name);
                FileStatus? status = null;
                if (entrySize > 0)
                {
                    NodeEntry entry = MemoryMarshal.Read<NodeEntry>(reply[tagSize..]);
                    FuseVersionTags tags = tagSize > 0 ? MemoryMarshal.Read<FuseVersionTags>(reply) : default;
                    if (entry.NodeId != NodeId.None)
                    {
                        status = Take(target, (entry, tags), text, position);
                    }
                }

                items.Add(new DirectoryItem(text, status?.Kind ?? (FileKind)(type & 15), inode, status));
            }

            int record = (entrySize + Fixed + (int)nameLength + 7) & ~7;
            reply = reply[Math.Min(record, reply.Length)..];
        }

        // A listing that does not get on would never end.
        return next != position.Cookie ? new Listing(items, next) : throw FuseMessages.Malformed(target);
    }

    private FileStatus Take(
        FuseMessages.Target target,
        (NodeEntry Node, FuseVersionTags Tags) entry,
        string name,
        ListingPosition position)
    {
        if (!FuseMessages.IsValid(entry.Node))
        {
            throw FuseMessages.Malformed(target);
        }

        Nodes.Release(Nodes.Learn(entry.Node, entry.Tags, position.Node, name, position.Note));
        return new FileStatus(entry.Node.Attributes);
    }

    private readonly record struct ListingPosition(CachedNode Node, ulong Cookie, ReplyNote Note);

    private readonly record struct Listing(List<DirectoryItem> Items, ulong? Next);
}
