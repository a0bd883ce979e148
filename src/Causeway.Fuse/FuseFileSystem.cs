using Causeway.Linux;

namespace Causeway.Fuse;

/// <summary>
/// A file system as one guest sees it: one method per opcode. Derive from it to serve requests at the level of the
/// protocol, with node ids, wire flags and errno.
/// </summary>
/// <remarks>
/// <para>Every method answers ENOSYS unless overridden, which tells a Linux guest for the rest of the connection that the
/// request is not implemented; use EOPNOTSUPP for "not this file".</para>
/// <para>Methods run on the threads of the transport, several at a time. One that completes at once costs nothing extra;
/// one that waits must do so asynchronously. Expected failures are returned, never thrown. Names, contexts, buffers and
/// payload belong to the request and are valid until the returned task completes.</para>
/// <para>A node id that a method receives comes from the guest and may be any number. Each reply that carries a
/// <see cref="NodeEntry"/> with a node adds one to that node's lookup count, and <see cref="Forget"/> takes lookups
/// away.</para>
/// </remarks>
public abstract class FuseFileSystem : IDisposable
{
    private const Errno NotImplemented = Errno.ENOSYS;

    /// <summary>
    /// The version table that the file system keeps, for guests that can see it; null when it keeps none. It belongs to the file
    /// system, and is the same for all sessions on the same files.
    /// </summary>
    public virtual VersionTable? Versions => null;

    /// <summary>
    /// INIT: a guest begins a session. Whatever a previous session left behind (nodes, handles, locks) is void from now on.
    /// </summary>
    /// <remarks>
    /// The session has granted what needs no behaviour of its own: ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, HAS_IOCTL_DIR,
    /// ASYNC_DIO, PARALLEL_DIROPS, MAX_PAGES and INIT_EXT. The file system adds the others it keeps the promise of, and may
    /// take back. What was not offered, and what is of no use on virtio-fs, is left out afterwards. Requests of the
    /// previous session may still be running.
    /// </remarks>
    /// <param name="negotiation">The guest's offer; the method adds what it grants.</param>
    /// <returns>Success, or the errno that makes the guest's mount fail.</returns>
    public virtual ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation) => new(Errno.Success);

    /// <summary>DESTROY, or the guest went away: the session is over. Drops nodes, handles and locks.</summary>
    public virtual void Destroy()
    {
    }

    /// <summary>
    /// The guest wants to be told of changes that it did not make itself, from now on until
    /// <see cref="StopNotifications"/>. Called outside any request, before or after INIT.
    /// </summary>
    /// <param name="notifier">How it is told.</param>
    public virtual void StartNotifications(FuseNotifier notifier)
    {
    }

    /// <summary>The guest takes no notifications any more. On return the notifier is not used again.</summary>
    public virtual void StopNotifications()
    {
    }

    /// <summary>LOOKUP: a name is looked up in a directory, on every step of a path walk that the guest has not cached.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The node, its count raised by one; <see cref="NodeEntry.Negative"/>; or ENOENT.</returns>
    public virtual ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context) =>
        new(NotImplemented);

    /// <summary>FORGET, BATCH_FORGET: the guest gives back lookups of a node. Unknown nodes are ignored.</summary>
    /// <param name="node">
    /// The node, never the root; it may be used again for something else once its count is zero.
    /// </param>
    /// <param name="lookupCount">How many lookups are given back; at least one, perhaps more than there are.</param>
    public virtual void Forget(NodeId node, ulong lookupCount)
    {
    }

    /// <summary>GETATTR: the attributes of a node, when the guest's copy has expired.</summary>
    /// <param name="node">The node.</param>
    /// <param name="arguments">An open handle, perhaps.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Result<FuseAttrOut>> GetAttrAsync(
        NodeId node, FuseGetAttrIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>STATX: the attributes of a node with the time of creation.</summary>
    /// <param name="node">The node.</param>
    /// <param name="arguments">What is asked for.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Result<FuseStatxOut>> StatxAsync(
        NodeId node, FuseStatxIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>SETATTR: chmod(2), chown(2), truncate(2), utimensat(2) and their kin, several at once.</summary>
    /// <param name="node">The node.</param>
    /// <param name="arguments">What to set.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The attributes afterwards.</returns>
    public virtual ValueTask<Result<FuseAttrOut>> SetAttrAsync(
        NodeId node, FuseSetAttrIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>READLINK: the target of a symbolic link.</summary>
    /// <param name="node">The link.</param>
    /// <param name="destination">Where the target goes, without NUL.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The target's length in bytes; at least one.</returns>
    public virtual ValueTask<Result<int>> ReadLinkAsync(
        NodeId node, Memory<byte> destination, RequestContext context) => new(NotImplemented);

    /// <summary>SYMLINK: makes a symbolic link.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name of the link.</param>
    /// <param name="target">Its target, followed by a NUL. Data: never to be interpreted.</param>
    /// <param name="context">Who asks, and owns the link.</param>
    /// <returns>The node, its count raised by one.</returns>
    public virtual ValueTask<Result<NodeEntry>> SymlinkAsync(
        NodeId parent, FileName name, ReadOnlyMemory<byte> target, RequestContext context) => new(NotImplemented);

    /// <summary>MKNOD: makes a regular file, FIFO, socket or device node.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="arguments">Type, permissions, device number and umask.</param>
    /// <param name="context">Who asks, and owns the node.</param>
    /// <returns>The node, its count raised by one.</returns>
    public virtual ValueTask<Result<NodeEntry>> MknodAsync(
        NodeId parent, FileName name, FuseMknodIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>MKDIR: makes a directory.</summary>
    /// <param name="parent">The directory it goes into.</param>
    /// <param name="name">The name.</param>
    /// <param name="arguments">Permissions and umask.</param>
    /// <param name="context">Who asks, and owns the directory.</param>
    /// <returns>The node, its count raised by one.</returns>
    public virtual ValueTask<Result<NodeEntry>> MkdirAsync(
        NodeId parent, FileName name, FuseMkdirIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>UNLINK: removes a name that is not a directory's. The node lives on while the guest holds lookups of it.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> UnlinkAsync(NodeId parent, FileName name, RequestContext context) =>
        new(NotImplemented);

    /// <summary>RMDIR: removes an empty directory. The node lives on while the guest holds lookups of it.</summary>
    /// <param name="parent">The directory it is in.</param>
    /// <param name="name">The name.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> RmdirAsync(NodeId parent, FileName name, RequestContext context) =>
        new(NotImplemented);

    /// <summary>RENAME, RENAME2: moves a name, replacing what has the new one unless the flags say otherwise.</summary>
    /// <param name="parent">The directory of the old name.</param>
    /// <param name="name">The old name.</param>
    /// <param name="arguments">The directory of the new name, and flags (only those the enumeration knows).</param>
    /// <param name="newName">The new name.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> RenameAsync(
        NodeId parent, FileName name, FuseRename2In arguments, FileName newName, RequestContext context) =>
        new(NotImplemented);

    /// <summary>LINK: gives a node another name.</summary>
    /// <param name="node">The node.</param>
    /// <param name="newParent">The directory of the new name.</param>
    /// <param name="newName">The new name.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The node, its count raised by one.</returns>
    public virtual ValueTask<Result<NodeEntry>> LinkAsync(
        NodeId node, NodeId newParent, FileName newName, RequestContext context) => new(NotImplemented);

    /// <summary>OPEN: opens a regular file.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">Flags of open(2).</param>
    /// <param name="context">Who asks.</param>
    /// <returns>A handle, ended by <see cref="ReleaseAsync"/>.</returns>
    public virtual ValueTask<Result<FuseOpenOut>> OpenAsync(
        NodeId node, FuseOpenIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>CREATE: makes a regular file, or finds one unless O_EXCL is given, and opens it.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="arguments">Flags of open(2), permissions and umask.</param>
    /// <param name="context">Who asks, and owns a new file.</param>
    /// <returns>The node, its count raised by one, and a handle.</returns>
    public virtual ValueTask<Result<FuseCreateOut>> CreateAsync(
        NodeId parent, FileName name, FuseCreateIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>TMPFILE: makes a regular file without a name and opens it.</summary>
    /// <param name="parent">The directory whose file system the file goes to.</param>
    /// <param name="arguments">Flags of open(2), permissions and umask.</param>
    /// <param name="context">Who asks, and owns the file.</param>
    /// <returns>The node, its count raised by one, and a handle.</returns>
    public virtual ValueTask<Result<FuseCreateOut>> TmpfileAsync(
        NodeId parent, FuseCreateIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>READ: reads from an open file.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">Handle, offset and flags.</param>
    /// <param name="destination">Where the bytes go: no longer than the size asked for.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>How many bytes were read; fewer than asked for means end of file.</returns>
    public virtual ValueTask<Result<int>> ReadAsync(
        NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context) => new(NotImplemented);

    /// <summary>WRITE: writes to an open file.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">Handle, offset and flags.</param>
    /// <param name="source">The bytes.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>How many bytes were written.</returns>
    public virtual ValueTask<Result<int>> WriteAsync(
        NodeId node, FuseWriteIn arguments, IoVectorList source, RequestContext context) => new(NotImplemented);

    /// <summary>STATFS: size and free space of the file system that holds a node.</summary>
    /// <param name="node">The node.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Result<FuseStatfsOut>> StatfsAsync(NodeId node, RequestContext context) =>
        new(NotImplemented);

    /// <summary>
    /// RELEASE: the last descriptor of an open file is closed, and its flock(2) ends. Its result reaches no application.
    /// </summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">The handle.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> ReleaseAsync(NodeId node, FuseReleaseIn arguments, RequestContext context) =>
        new(NotImplemented);

    /// <summary>FLUSH: some descriptor of an open file is closed; the result is that of close(2).</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">The handle, and the owner whose record locks on the file end.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> FlushAsync(NodeId node, FuseFlushIn arguments, RequestContext context) =>
        new(NotImplemented);

    /// <summary>FSYNC: makes data and attributes of an open file durable.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">The handle, and whether data suffices.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> FsyncAsync(NodeId node, FuseFsyncIn arguments, RequestContext context) =>
        new(NotImplemented);

    /// <summary>SETXATTR: sets an extended attribute.</summary>
    /// <param name="node">The node.</param>
    /// <param name="name">The attribute's name, followed by a NUL.</param>
    /// <param name="value">Its value.</param>
    /// <param name="arguments">Flags.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> SetXattrAsync(
        NodeId node,
        ReadOnlyMemory<byte> name,
        ReadOnlyMemory<byte> value,
        FuseSetXattrIn arguments,
        RequestContext context) => new(NotImplemented);

    /// <summary>GETXATTR: the value of an extended attribute.</summary>
    /// <param name="node">The node.</param>
    /// <param name="name">The attribute's name, followed by a NUL.</param>
    /// <param name="destination">Where the value goes; empty when only its size is asked for.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The value's size in bytes; ERANGE when it does not fit; ENODATA when there is none.</returns>
    public virtual ValueTask<Result<int>> GetXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, Memory<byte> destination, RequestContext context) =>
        new(NotImplemented);

    /// <summary>LISTXATTR: the names of all extended attributes, each followed by a NUL.</summary>
    /// <param name="node">The node.</param>
    /// <param name="destination">Where the names go; empty when only their size is asked for.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The size of the list in bytes; ERANGE when it does not fit.</returns>
    public virtual ValueTask<Result<int>> ListXattrAsync(
        NodeId node, Memory<byte> destination, RequestContext context) => new(NotImplemented);

    /// <summary>REMOVEXATTR: removes an extended attribute.</summary>
    /// <param name="node">The node.</param>
    /// <param name="name">The attribute's name, followed by a NUL.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> RemoveXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, RequestContext context) => new(NotImplemented);

    /// <summary>OPENDIR: opens a directory.</summary>
    /// <param name="node">The directory.</param>
    /// <param name="arguments">Flags of open(2).</param>
    /// <param name="context">Who asks.</param>
    /// <returns>A handle, ended by <see cref="ReleaseDirAsync"/>.</returns>
    public virtual ValueTask<Result<FuseOpenOut>> OpenDirAsync(
        NodeId node, FuseOpenIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>
    /// READDIR, READDIRPLUS: the next entries of an open directory. An empty reply means the end of the directory; "." and
    /// ".." are entries like others, but never carry a node.
    /// </summary>
    /// <param name="node">The directory.</param>
    /// <param name="arguments">The handle, and the cookie to continue from; zero is the start.</param>
    /// <param name="entries">Takes the entries; its <see cref="DirectoryWriter.IsPlus"/> says which request it is.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>
    /// Success; EINVAL when not even one entry fits. An error after entries were added is not sent: the entries are, and
    /// the guest asks again.
    /// </returns>
    public virtual ValueTask<Errno> ReadDirAsync(
        NodeId node, FuseReadIn arguments, DirectoryWriter entries, RequestContext context) => new(NotImplemented);

    /// <summary>RELEASEDIR: an open directory is closed.</summary>
    /// <param name="node">The directory.</param>
    /// <param name="arguments">The handle.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> ReleaseDirAsync(NodeId node, FuseReleaseIn arguments, RequestContext context) =>
        new(NotImplemented);

    /// <summary>FSYNCDIR: makes the entries of an open directory durable.</summary>
    /// <param name="node">The directory.</param>
    /// <param name="arguments">The handle.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> FsyncDirAsync(NodeId node, FuseFsyncIn arguments, RequestContext context) =>
        new(NotImplemented);

    /// <summary>GETLK: finds the record lock that is in the way of one.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">The lock that is wanted.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The lock that is in its way; type unlocked when there is none.</returns>
    public virtual ValueTask<Result<FuseLkOut>> GetLockAsync(
        NodeId node, FuseLkIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>
    /// SETLK, SETLKW: takes or gives back a record lock of an owner, or with FUSE_LK_FLOCK the flock(2) of an open file. FLUSH
    /// gives back the record locks of its owner on that file.
    /// </summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">The lock.</param>
    /// <param name="mayWait">
    /// Whether to wait while another lock is in its way. It must not block the thread, must end when
    /// <see cref="RequestContext.CancellationToken"/> fires, and must not begin unless <see cref="RequestContext.MayWait"/>.
    /// </param>
    /// <param name="context">Who asks.</param>
    /// <returns>EAGAIN when another lock is in its way; EINTR when the wait was interrupted; ENOLCK when there are too many.</returns>
    public virtual ValueTask<Errno> SetLockAsync(
        NodeId node, FuseLkIn arguments, bool mayWait, RequestContext context) => new(NotImplemented);

    /// <summary>IOCTL: ioctl(2) on an open file or directory.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">The handle and the request's number.</param>
    /// <param name="input">The data that came along.</param>
    /// <param name="output">Where the answer goes; zeros.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>How many bytes the answer has; ENOTTY for an unknown request.</returns>
    public virtual ValueTask<Result<int>> IoctlAsync(
        NodeId node, FuseIoctlIn arguments, ReadOnlyMemory<byte> input, Memory<byte> output, RequestContext context) =>
        new(NotImplemented);

    /// <summary>ACCESS: access(2). Linux virtio-fs guests decide themselves and never send it.</summary>
    /// <param name="node">The node.</param>
    /// <param name="mask">R_OK 4, W_OK 2, X_OK 1, or zero for existence.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> AccessAsync(NodeId node, uint mask, RequestContext context) =>
        new(NotImplemented);

    /// <summary>FALLOCATE: reserves, punches or zeroes a range of an open file.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">Handle, range and mode.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> FallocateAsync(
        NodeId node, FuseFallocateIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>LSEEK: finds data or a hole in an open file.</summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">Handle, offset and what to find.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>The position in bytes; ENXIO when there is none.</returns>
    public virtual ValueTask<Result<ulong>> LseekAsync(
        NodeId node, FuseLseekIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>COPY_FILE_RANGE, COPY_FILE_RANGE_64: copies between open files without the bytes passing the guest.</summary>
    /// <param name="node">The source.</param>
    /// <param name="arguments">Handles, offsets and length.</param>
    /// <param name="context">Who asks.</param>
    /// <returns>How many bytes were copied; may be fewer than asked for, and zero at the end of the source.</returns>
    public virtual ValueTask<Result<ulong>> CopyFileRangeAsync(
        NodeId node, FuseCopyFileRangeIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>
    /// SETUPMAPPING: has a part of a file mapped into the guest's window (<see cref="FuseNegotiation.Window"/>). Sent when the
    /// guest first reads, writes or touches that part, and again when it first writes what it could only read. There is no
    /// falling back: a guest that is refused gives its program an error.
    /// </summary>
    /// <param name="node">The file.</param>
    /// <param name="arguments">Which part and where; in bounds and aligned to <see cref="IDaxWindow.SlotSize"/>.</param>
    /// <param name="context">Who asks: whichever thread of the guest came first, not the one that opened the file.</param>
    public virtual ValueTask<Errno> SetupMappingAsync(
        NodeId node, FuseSetupMappingIn arguments, RequestContext context) => new(NotImplemented);

    /// <summary>SYNCFS: makes the whole file system that holds a node durable.</summary>
    /// <param name="node">The root of the share, or of a mount point announced in it.</param>
    /// <param name="context">Who asks.</param>
    public virtual ValueTask<Errno> SyncFsAsync(NodeId node, RequestContext context) => new(NotImplemented);

    /// <summary>
    /// The calling thread has answered all it had and is about to wait, or nothing is going on. A file system may do now what it put off to answer
    /// sooner, such as closing descriptors. Called by any thread of the transport, between requests.
    /// </summary>
    /// <returns>
    /// After how many milliseconds to call again if no request comes; <see cref="Timeout.Infinite"/> when nothing is put off.
    /// </returns>
    public virtual int Settle() => Timeout.Infinite;

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases what the file system holds.</summary>
    /// <param name="disposing">Always true: there is no finalizer.</param>
    protected virtual void Dispose(bool disposing)
    {
    }
}
