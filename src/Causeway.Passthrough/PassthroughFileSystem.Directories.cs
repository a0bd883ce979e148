using System.Buffers.Binary;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Listings. One getdents64(2) fetches far more entries than a reply takes; the rest is kept with the open directory, for the
// request that continues where this one ended.
public sealed unsafe partial class PassthroughFileSystem
{
    private const long UnknownPosition = -1;

    /// <inheritdoc/>
    public override ValueTask<Errno> ReadDirAsync(
        NodeId node, FuseReadIn arguments, DirectoryWriter entries, RequestContext context)
    {
        if (arguments.Size == 0)
        {
            return new(Errno.Success);
        }

        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        Errno error = Errno.ENOTDIR;
        if ((file->Flags & OpenFileFlags.Directory) != 0)
        {
            // Two requests on one handle share its position; they follow each other.
            var wait = new SpinWait();
            while (Interlocked.Exchange(ref file->Busy, 1) != 0)
            {
                wait.SpinOnce();
            }

            error = List(file, node, (long)arguments.Offset, entries, context);
            Volatile.Write(ref file->Busy, 0);
        }

        _files.EndUse(file);
        return new(Answer(error));
    }

    private Errno List(OpenFile* file, NodeId id, long cookie, DirectoryWriter entries, RequestContext context)
    {
        using Operation operation = Begin();
        Errno error = operation.FindDirectory(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        if (context.WantsVersions)
        {
            Cover(_files.WordOf(file), file);
        }

        var directory = new Parent(node, mount, file->Descriptor);
        Span<byte> buffer = operation.Thread.DirectoryBuffer;
        while (true)
        {
            error = Fetch(file, cookie, buffer, out int length, out ulong version);
            StampListing(context, file, version);
            if (error != Errno.Success || length == 0)
            {
                return error;
            }

            ReadOnlySpan<byte> records = buffer[..length];
            error = AddAll(directory, ref records, ref cookie, entries, context.WantsVersions);
            if (records.Length != 0)
            {
                if (entries.Length != 0)
                {
                    _files.KeepLeftover(file, records, cookie);
                    file->LeftoverVersion = version;
                }
                else
                {
                    file->Position = UnknownPosition;
                }
            }

            // An empty reply would mean the end: when everything fetched has vanished meanwhile, fetch more.
            if (error != Errno.Success || entries.Length != 0)
            {
                return error;
            }
        }
    }

    // Gets the entries that follow a cookie: those kept, or the next from the host.
    private Errno Fetch(OpenFile* file, long cookie, Span<byte> buffer, out int length, out ulong version)
    {
        length = 0;
        version = file->LeftoverVersion;
        if (file->Leftover != null)
        {
            if (file->LeftoverCookie == cookie)
            {
                length = file->LeftoverLength;
                new ReadOnlySpan<byte>(file->Leftover, length).CopyTo(buffer);
            }

            _files.DropLeftover(file);
            if (length != 0)
            {
                return Errno.Success;
            }
        }

        version = file->VersionWord == 0 ? 0 : _versions!.Table.ReadVersion(file->VersionWord + 1);
        if (file->Position != cookie)
        {
            const int seekSet = 0;
            SyscallResult sought = Files.Lseek(file->Descriptor, cookie, seekSet);
            if (sought.IsError)
            {
                return sought.Error;
            }
        }

        SyscallResult read = Directories.Getdents64(file->Descriptor, buffer);
        if (read.IsError)
        {
            file->Position = UnknownPosition;
            return read.Error;
        }

        length = read.Count;
        file->Position = length == 0 ? cookie : LastCookie(buffer[..length]);
        return Errno.Success;
    }

    // Adds entries until one does not fit; what is left stays in "records", and "cookie" is where it begins.
    private Errno AddAll(
        in Parent directory, ref ReadOnlySpan<byte> records, ref long cookie, DirectoryWriter entries, bool hasTags)
    {
        while (records.Length != 0)
        {
            ReadOnlySpan<byte> record = records[..BinaryPrimitives.ReadUInt16LittleEndian(
                records[Directories.LengthOffset..])];
            ReadOnlySpan<byte> name = record[Directories.NameOffset..];
            name = name[..(name.IndexOf((byte)0) + 1)];
            if (!entries.HasRoomFor(name.Length - 1))
            {
                return entries.Length == 0 ? Errno.EINVAL : Errno.Success;
            }

            AddOne(directory, record, name, entries, hasTags);
            cookie = BinaryPrimitives.ReadInt64LittleEndian(record[Directories.CookieOffset..]);
            records = records[record.Length..];
        }

        return Errno.Success;
    }

    private void AddOne(
        in Parent directory, ReadOnlySpan<byte> record, ReadOnlySpan<byte> name, DirectoryWriter entries, bool hasTags)
    {
        ulong inode = BinaryPrimitives.ReadUInt64LittleEndian(record[Directories.InodeOffset..]);
        ulong next = BinaryPrimitives.ReadUInt64LittleEndian(record[Directories.CookieOffset..]);
        uint type = record[Directories.TypeOffset];
        bool isParent = name.SequenceEqual("..\0"u8);
        if (isParent && directory.Node == _nodes.Root)
        {
            // What is above the share is none of the guest's business.
            inode = directory.Node->Inode;
        }

        if (!entries.IsPlus || isParent || name.SequenceEqual(".\0"u8))
        {
            _ = entries.TryAdd(name[..^1], inode, next, type);
            return;
        }

        FuseVersionTags tags = default;
        if (hasTags)
        {
            StampName(ref tags, directory.Node, name[..^1]);
        }

        Errno error = LookupName(directory, name, mayEvict: false, out NodeEntry entry);
        if (error == Errno.Success)
        {
            if (hasTags)
            {
                StampFound(ref tags, ref entry);
            }

            _ = entries.TryAdd(entry, tags, name[..^1], next);
        }
        else if (error != Errno.ENOENT)
        {
            // It is there, but cannot be had now: the guest looks it up itself if it needs it.
            _ = entries.TryAdd(name[..^1], inode, next, type);
        }
    }

    private static long LastCookie(ReadOnlySpan<byte> records)
    {
        while (true)
        {
            int length = BinaryPrimitives.ReadUInt16LittleEndian(records[Directories.LengthOffset..]);
            if (length == records.Length)
            {
                return BinaryPrimitives.ReadInt64LittleEndian(records[Directories.CookieOffset..]);
            }

            records = records[length..];
        }
    }
}
