using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>Files without a name, birth times, and the file system as a whole: TMPFILE, STATX and SYNCFS of linux/fuse.h.</content>
public sealed partial class VirtioFsClient
{
    // linux/stat.h
    private const uint StatxBirthTime = 0x800;

    /// <summary>
    /// Makes a file without a name, open(2) with O_TMPFILE. It goes when it is closed, unless <see
    /// cref="CreateHardLinkAsync(string, VirtioFsFile, CancellationToken)"/> has given it a name.
    /// </summary>
    /// <param name="directory">A directory of the file system that it is to be on.</param>
    /// <param name="access">For writing, or for both, the default.</param>
    /// <param name="permissions">Permission bits, default rw-------. No umask is applied.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The file, empty.</returns>
    /// <exception cref="VirtioFsException">
    /// ENOENT, ENOTDIR: there is no such directory. EOPNOTSUPP: the file system cannot. ENOSYS: the device knows no TMPFILE.
    /// </exception>
    public ValueTask<VirtioFsFile> CreateTemporaryFileAsync(
        string directory = "/",
        FileAccess access = FileAccess.ReadWrite,
        uint permissions = 0x180,
        CancellationToken cancellationToken = default)
    {
        if (!access.HasFlag(FileAccess.Write))
        {
            throw new ArgumentException("a file without a name is of use only to who may write to it", nameof(access));
        }

        ClientSession session = _session;
        return session.ByPathAsync(
            () => session.CreateTemporaryFileAsync(directory, access, permissions, cancellationToken));
    }

    /// <summary>Gives an open file one more name; one without a name gets its first.</summary>
    /// <param name="path">The new name.</param>
    /// <param name="file">A file of this session.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="VirtioFsException">EEXIST: the name is taken. ENOENT: all names of the file were removed.</exception>
    public async ValueTask CreateHardLinkAsync(
        string path, VirtioFsFile file, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (file.Session != _session)
        {
            throw new ArgumentException("the file was opened in another session", nameof(file));
        }

        await MakeAsync("link", path, FuseOpcode.Link, new FuseLinkIn { OldNode = file.NodeId }, null, cancellationToken)
            .ConfigureAwait(false);
        file.ForgetAttributes();
    }

    /// <summary>Reads when an object was made, statx(2) with STATX_BTIME. Asked for each time, in every cache mode.</summary>
    /// <param name="path">The object.</param>
    /// <param name="links">What to do when it is a symbolic link. Default: follow it.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The time, to 100 ns; null when the file system does not keep it or the device does not tell.</returns>
    public async ValueTask<DateTimeOffset?> GetBirthTimeAsync(
        string path, LinkHandling links = LinkHandling.Follow, CancellationToken cancellationToken = default)
    {
        Result<FuseStatxOut> reply = await UseNodeAsync(
            "statx",
            path,
            links,
            async (session, node) =>
            {
                Result<FuseStatxOut> answer = await session.Messages.CallAsync<FuseStatxIn, FuseStatxOut>(
                    new(FuseOpcode.Statx, node.Id),
                    new FuseStatxIn { Mask = StatxBirthTime },
                    default,
                    late: null,
                    cancellationToken).ConfigureAwait(false);
                return answer.Error == Errno.ENOSYS ? answer : ClientSession.Check(answer, "statx", path);
            },
            cancellationToken).ConfigureAwait(false);
        if (reply.IsError)
        {
            return null;
        }

        FuseStatx status = reply.Value.Statx;
        return (status.Mask & StatxBirthTime) != 0
            ? FileStatus.ToTime((ulong)status.BirthTime.Seconds, status.BirthTime.Nanoseconds)
            : null;
    }

    /// <summary>
    /// Has everything written so far put on stable storage, syncfs(2): first what this client has kept back, of all open
    /// files, then the whole file system on the device.
    /// </summary>
    /// <param name="path">An object on it; file systems can be mounted inside a share.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="VirtioFsException">
    /// ENOSYS: the device knows no SYNCFS; <see cref="VirtioFsFile.FlushAsync"/> of each file does it. Otherwise something
    /// could not be stored.
    /// </exception>
    public async ValueTask SyncFileSystemAsync(string path = "/", CancellationToken cancellationToken = default)
    {
        // Not as a part of what is done again after ESTALE: what could not be written is not there a second time. And whatever
        // becomes of one file, the others are written.
        VirtioFsException? failure = null;
        foreach (KeyValuePair<VirtioFsFile, byte> writer in _session.Writers)
        {
            try
            {
                await writer.Key.PushAsync("syncfs").ConfigureAwait(false);
            }
            catch (VirtioFsException exception)
            {
                failure ??= exception;
            }
        }

        await UseNodeAsync(
            "syncfs",
            path,
            LinkHandling.Follow,
            async (session, node) =>
            {
                Errno error = await session.Messages.CallAsync(
                    new(FuseOpcode.SyncFs, node.Id), default(FuseSyncFsIn), default, cancellationToken).ConfigureAwait(false);
                ClientSession.Check(error, "syncfs", path);
                return error;
            },
            cancellationToken).ConfigureAwait(false);
        if (failure is not null)
        {
            throw failure;
        }
    }
}
