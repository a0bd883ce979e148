using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>Changing names, attributes and extended attributes.</content>
public sealed partial class VirtioFsClient
{
    // What Linux allows for a value and for a list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
    private const int MaxXattr = 65_536;

    /// <summary>Makes a directory.</summary>
    /// <param name="path">Its path; the directory above exists.</param>
    /// <param name="permissions">Permission bits, default rwxr-xr-x. No umask is applied.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask CreateDirectoryAsync(
        string path, uint permissions = 0x1ED, CancellationToken cancellationToken = default) =>
        MakeAsync(
            "mkdir", path, FuseOpcode.Mkdir, new FuseMkdirIn { Mode = permissions & 0xFFF }, second: null, cancellationToken);

    /// <summary>Makes a symbolic link.</summary>
    /// <param name="path">The link.</param>
    /// <param name="target">Where it leads; stored as it is.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask CreateSymbolicLinkAsync(
        string path, string target, CancellationToken cancellationToken = default) =>
        MakeAsync("symlink", path, FuseOpcode.Symlink, default(FuseMessages.NoArguments), target, cancellationToken);

    /// <summary>Gives a file one more name.</summary>
    /// <param name="path">The new name.</param>
    /// <param name="existing">The file; a symbolic link is taken itself.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask CreateHardLinkAsync(
        string path, string existing, CancellationToken cancellationToken = default)
    {
        await UseNodeAsync(
            "link",
            existing,
            LinkHandling.NoFollow,
            async (session, node) =>
            {
                await MakeAsync("link", path, FuseOpcode.Link, new FuseLinkIn { OldNode = node.Id }, null, cancellationToken)
                    .ConfigureAwait(false);
                session.Nodes.ForgetAttributes(node);
                return Errno.Success;
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Removes a name that is not a directory's.</summary>
    /// <param name="path">The name.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask DeleteFileAsync(string path, CancellationToken cancellationToken = default) =>
        RemoveAsync("unlink", path, FuseOpcode.Unlink, cancellationToken);

    /// <summary>Removes an empty directory.</summary>
    /// <param name="path">The directory.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask DeleteDirectoryAsync(string path, CancellationToken cancellationToken = default) =>
        RemoveAsync("rmdir", path, FuseOpcode.Rmdir, cancellationToken);

    /// <summary>Moves an object, in one step.</summary>
    /// <param name="from">Its name.</param>
    /// <param name="to">Its new name.</param>
    /// <param name="flags">Whether to replace what is there (the default), to refuse, or to exchange both.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask RenameAsync(
        string from, string to, RenameFlags flags = RenameFlags.None, CancellationToken cancellationToken = default)
    {
        ClientSession session = _session;
        await session.ByPathAsync(async () =>
        {
            (CachedNode oldParent, string oldName) = await session.WalkToParentAsync("rename", from, cancellationToken)
                .ConfigureAwait(false);
            CachedNode? newParent = null;
            try
            {
                (newParent, string newName) = await session.WalkToParentAsync("rename", to, cancellationToken)
                    .ConfigureAwait(false);
                return await RenameAsync(session, (oldParent, oldName, newParent, newName), flags, from, cancellationToken)
                    .ConfigureAwait(false);
            }
            finally
            {
                session.Nodes.Release(oldParent);
                if (newParent is not null)
                {
                    session.Nodes.Release(newParent);
                }
            }
        }).ConfigureAwait(false);
    }

    /// <summary>Sets permission bits.</summary>
    /// <param name="path">The object; a symbolic link is followed.</param>
    /// <param name="permissions">The bits, 0 to 0xFFF.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask SetPermissionsAsync(string path, uint permissions, CancellationToken cancellationToken = default) =>
        SetAttributesAsync(
            "chmod",
            path,
            LinkHandling.Follow,
            new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = permissions & 0xFFF },
            cancellationToken);

    /// <summary>Sets owner and group.</summary>
    /// <param name="path">The object; a symbolic link is followed.</param>
    /// <param name="userId">The owner; null to leave it.</param>
    /// <param name="groupId">The group; null to leave it.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask SetOwnerAsync(
        string path, uint? userId, uint? groupId, CancellationToken cancellationToken = default) =>
        SetAttributesAsync(
            "chown",
            path,
            LinkHandling.Follow,
            new FuseSetAttrIn
            {
                Valid = (userId is null ? 0 : SetAttrValid.UserId) | (groupId is null ? 0 : SetAttrValid.GroupId),
                UserId = userId ?? 0,
                GroupId = groupId ?? 0,
            },
            cancellationToken);

    /// <summary>Sets times, to 100 ns.</summary>
    /// <param name="path">The object.</param>
    /// <param name="access">Time of last access; null to leave it.</param>
    /// <param name="modification">Time of last modification; null to leave it.</param>
    /// <param name="links">What to do when it is a symbolic link. Default: follow it.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask SetTimesAsync(
        string path,
        DateTimeOffset? access,
        DateTimeOffset? modification,
        LinkHandling links = LinkHandling.Follow,
        CancellationToken cancellationToken = default)
    {
        (ulong accessSeconds, uint accessNanoseconds) = Split(access ?? default);
        (ulong modificationSeconds, uint modificationNanoseconds) = Split(modification ?? default);
        return SetAttributesAsync(
            "utimes",
            path,
            links,
            new FuseSetAttrIn
            {
                Valid = (access is null ? 0 : SetAttrValid.AccessTime)
                    | (modification is null ? 0 : SetAttrValid.ModificationTime),
                AccessTime = accessSeconds,
                AccessTimeNanoseconds = accessNanoseconds,
                ModificationTime = modificationSeconds,
                ModificationTimeNanoseconds = modificationNanoseconds,
            },
            cancellationToken);
    }

    /// <summary>Reads an extended attribute.</summary>
    /// <param name="path">The object; a symbolic link is followed.</param>
    /// <param name="name">The name with its namespace, for example <c>user.origin</c>.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The value; null when there is no such attribute.</returns>
    public async ValueTask<byte[]?> GetExtendedAttributeAsync(
        string path, string name, CancellationToken cancellationToken = default)
    {
        Result<byte[]> value = await XattrAsync(
            "getxattr", path, FuseOpcode.GetXattr, new FuseMessages.Names(name), cancellationToken).ConfigureAwait(false);
        return value.Error == Errno.ENODATA ? null : ClientSession.Check(value, "getxattr", path);
    }

    /// <summary>Lists the names of extended attributes.</summary>
    /// <param name="path">The object; a symbolic link is followed.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask<IReadOnlyList<string>> ListExtendedAttributesAsync(
        string path, CancellationToken cancellationToken = default)
    {
        byte[] list = ClientSession.Check(
            await XattrAsync("listxattr", path, FuseOpcode.ListXattr, default, cancellationToken).ConfigureAwait(false),
            "listxattr",
            path);
        var names = new List<string>();
        ReadOnlyMemory<byte> rest = list;
        while (!rest.IsEmpty)
        {
            int end = rest.Span.IndexOf((byte)0);
            if (end <= 0)
            {
                throw FuseMessages.Malformed(new(FuseOpcode.ListXattr, NodeId.None));
            }

            names.Add(Encoding.UTF8.GetString(rest.Span[..end]));
            rest = rest[(end + 1)..];
        }

        return names;
    }

    /// <summary>Sets an extended attribute.</summary>
    /// <param name="path">The object; a symbolic link is followed.</param>
    /// <param name="name">The name with its namespace.</param>
    /// <param name="value">The value, at most 65,536 bytes.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask SetExtendedAttributeAsync(
        string path, string name, ReadOnlyMemory<byte> value, CancellationToken cancellationToken = default) =>
        ChangeAsync(
            "setxattr",
            path,
            LinkHandling.Follow,
            new FuseMessages.Names(name),
            (session, node) => session.Messages.SendBytesAsync(
                new(FuseOpcode.SetXattr, node.Id),
                new ShortSetXattr((uint)value.Length, Flags: 0),
                new FuseMessages.Names(name),
                value,
                cancellationToken),
            cancellationToken);

    /// <summary>Removes an extended attribute.</summary>
    /// <param name="path">The object; a symbolic link is followed.</param>
    /// <param name="name">The name with its namespace.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask RemoveExtendedAttributeAsync(
        string path, string name, CancellationToken cancellationToken = default) =>
        ChangeAsync(
            "removexattr",
            path,
            LinkHandling.Follow,
            new FuseMessages.Names(name),
            (session, node) => session.Messages.CallAsync(
                new(FuseOpcode.RemoveXattr, node.Id),
                default(FuseMessages.NoArguments),
                new FuseMessages.Names(name),
                cancellationToken),
            cancellationToken);

    /// <summary>The arguments of SETXATTR without SETXATTR_EXT.</summary>
    private readonly record struct ShortSetXattr(uint Size, uint Flags);

    private static (ulong Seconds, uint Nanoseconds) Split(DateTimeOffset time) =>
        ((ulong)time.ToUnixTimeSeconds(), (uint)(time.Ticks % TimeSpan.TicksPerSecond) * 100);

    private async ValueTask MakeAsync<TArguments>(
        string operation, string path, FuseOpcode opcode, TArguments arguments, string? second, CancellationToken cancellationToken)
        where TArguments : unmanaged
    {
        await UseParentAsync(
            operation,
            path,
            async (session, parent, name) =>
            {
                var names = new FuseMessages.Names(name, second);
                ClientSession.Check(names.Check(), operation, path);
                ReplyNote note = session.Nodes.Note();
                NodeEntry entry = ClientSession.Check(
                    await session.Messages.CallEntryAsync(new(opcode, parent.Id, note), arguments, names, cancellationToken)
                        .ConfigureAwait(false),
                    operation,
                    path);
                session.Nodes.Release(session.Nodes.Learn(entry, note.Tags, parent, name, note));
                session.Nodes.ForgetAttributes(parent);
                return Errno.Success;
            },
            cancellationToken).ConfigureAwait(false);
    }

    private static async ValueTask<Errno> RenameAsync(
        ClientSession session,
        (CachedNode OldParent, string OldName, CachedNode NewParent, string NewName) names,
        RenameFlags flags,
        string path,
        CancellationToken cancellationToken)
    {
        var both = new FuseMessages.Names(names.OldName, names.NewName);
        ClientSession.Check(both.Check(), "rename", path);

        // Known and held, as for removing.
        CachedNode node = await session.LookupAsync("rename", names.OldParent, names.OldName, path, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            Errno error = flags == RenameFlags.None
                ? await session.Messages.CallAsync(
                    new(FuseOpcode.Rename, names.OldParent.Id),
                    new FuseRenameIn { NewParent = names.NewParent.Id },
                    both,
                    cancellationToken).ConfigureAwait(false)
                : await session.Messages.CallAsync(
                    new(FuseOpcode.Rename2, names.OldParent.Id),
                    new FuseRename2In { NewParent = names.NewParent.Id, Flags = flags },
                    both,
                    cancellationToken).ConfigureAwait(false);

            // Also after an error: something may have happened.
            session.ForgetNode(names.OldParent, names.OldName);
            session.ForgetNode(names.NewParent, names.NewName);
            ClientSession.Check(error, "rename", path);
            return error;
        }
        finally
        {
            session.Nodes.ForgetAttributes(node);
            session.Nodes.Release(node);
        }
    }

    private async ValueTask RemoveAsync(
        string operation, string path, FuseOpcode opcode, CancellationToken cancellationToken)
    {
        await UseParentAsync(
            operation,
            path,
            async (session, parent, name) =>
            {
                // Known and held, as Linux guests have it: the C virtiofsd refuses to remove what it has not shown.
                CachedNode node = await session.LookupAsync(operation, parent, name, path, cancellationToken)
                    .ConfigureAwait(false);
                try
                {
                    Errno error = await session.Messages.CallAsync(
                        new(opcode, parent.Id),
                        default(FuseMessages.NoArguments),
                        new FuseMessages.Names(name),
                        cancellationToken).ConfigureAwait(false);
                    session.ForgetNode(parent, name);
                    ClientSession.Check(error, operation, path);
                    return error;
                }
                finally
                {
                    session.Nodes.ForgetAttributes(node);
                    session.Nodes.Release(node);
                }
            },
            cancellationToken).ConfigureAwait(false);
    }

    private ValueTask SetAttributesAsync(
        string operation, string path, LinkHandling links, FuseSetAttrIn arguments, CancellationToken cancellationToken) =>
        ChangeAsync(
            operation,
            path,
            links,
            default,
            (session, node) => session.SetAttributesAsync(node, arguments, cancellationToken),
            cancellationToken);

    private async ValueTask ChangeAsync(
        string operation,
        string path,
        LinkHandling links,
        FuseMessages.Names names,
        Func<ClientSession, CachedNode, ValueTask<Errno>> change,
        CancellationToken cancellationToken)
    {
        ClientSession.Check(names.Check(), operation, path);
        await UseNodeAsync(
            operation,
            path,
            links,
            async (session, node) =>
            {
                Errno error = await change(session, node).ConfigureAwait(false);
                session.Nodes.ForgetAttributes(node);
                ClientSession.Check(error, operation, path);
                return error;
            },
            cancellationToken).ConfigureAwait(false);
    }

    private ValueTask<Result<byte[]>> XattrAsync(
        string operation, string path, FuseOpcode opcode, FuseMessages.Names names, CancellationToken cancellationToken)
    {
        ClientSession.Check(names.Check(), operation, path);
        return UseNodeAsync(
            operation,
            path,
            LinkHandling.Follow,
            async (session, node) =>
            {
                string key = names.First ?? "";
                if (session.Nodes.IsCoherent && session.Nodes.FindXattr(node, key) is { } known)
                {
                    return (byte[])known.Clone();
                }

                ReplyNote note = session.Nodes.Note();
                Result<byte[]> value = await session.Messages.CallBytesAsync(
                    new(opcode, node.Id, note), new FuseGetXattrIn { Size = MaxXattr }, names, MaxXattr, cancellationToken)
                    .ConfigureAwait(false);
                if (!value.IsError)
                {
                    session.Nodes.LearnXattr(node, key, (byte[])value.Value.Clone(), note);
                }

                return value.Error == Errno.ESTALE ? ClientSession.Check(value, operation, path) : value;
            },
            cancellationToken);
    }
}
