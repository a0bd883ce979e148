using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Whose rights count: what is agreed about them in INIT, the caller's ids for what he makes, and setuid bits, setgid bits
// and capabilities of files, which end when a file changes.
public sealed unsafe partial class PassthroughFileSystem
{
    private const FuseFeatures AclFeatures = FuseFeatures.PosixAcl | FuseFeatures.DontMask | FuseFeatures.SetXattrExt;

    // False: the guest lacks what it must have.
    private bool NegotiatePrivileges(FuseNegotiation negotiation)
    {
        NegotiateKillPriv(negotiation);
        return Negotiate(negotiation, _options.PosixAcl, AclFeatures, "POSIX access control lists", out _posixAcl) &
            Negotiate(
                negotiation, _options.SecurityLabel, FuseFeatures.SecurityContext, "security labels for new files", out _);
    }

    // With a DAX window never: Linux guests remember then that a file has nothing to clear, and a capability that somebody else has
    // set meanwhile would stay, as what they store into the window is no WRITE.
    private void NegotiateKillPriv(FuseNegotiation negotiation)
    {
        bool isWanted = _options.KillPrivV2 ?? (_options.HasXattrs && !_mounts[_nodes.Root->Mount].IsNetwork);
        _killPriv = isWanted && negotiation.Window is null && negotiation.Offers(FuseFeatures.HandleKillPrivV2);
        negotiation.Granted |= _killPriv ? FuseFeatures.HandleKillPrivV2 : 0;
        if (_options.KillPrivV2 == true && negotiation.Window is not null)
        {
            Log.KillPrivLeftOut(_logger, _options.SharedDirectory);
        }
        else if (_options.KillPrivV2 == true && !_killPriv)
        {
            Log.FeatureMissing(_logger, _options.SharedDirectory, "clearing of setuid bits by the host (killpriv-v2)");
        }
    }

    private bool Negotiate(
        FuseNegotiation negotiation, NegotiationMode mode, FuseFeatures features, string what, out bool isUsed)
    {
        isUsed = mode != NegotiationMode.Never && negotiation.Offers(features);
        if (isUsed)
        {
            negotiation.Granted |= features;
        }
        else if (mode == NegotiationMode.Always)
        {
            Log.FeatureRequired(_logger, _options.SharedDirectory, what);
            return false;
        }
        else if (mode == NegotiationMode.Auto)
        {
            Log.FeatureMissing(_logger, _options.SharedDirectory, what);
        }

        return true;
    }

    // Takes on the ids of a request's caller for the one call that makes an object.
    private Errno ActAsCaller(WorkerThread thread, RequestContext context, uint mode, uint umask)
    {
        if (context.UserId == RequestContext.InvalidId || context.GroupId == RequestContext.InvalidId ||
            !_options.UserIds.TryToHost(context.UserId, out uint user) ||
            !_options.GroupIds.TryToHost(context.GroupId, out uint group) ||
            !TryTranslateGroups(context.Groups, thread.GroupBuffer, out ReadOnlySpan<uint> groups))
        {
            return Errno.EPERM;
        }

        // The setgid bit of a user who is not in the directory's group is for the host to strip; with CAP_FSETID it would
        // not.
        thread.KeepSetgid(user == 0 || (mode & FileMode.SetGroupId) == 0);
        // Without access control lists the guest's kernel has applied it. With them the host's does, or the default list of
        // the directory instead.
        thread.SetUmask(_posixAcl ? umask : 0);
        return thread.Assume(user, group, groups, isMembershipKnown: _hasGroups);
    }

    private bool TryTranslateGroups(ReadOnlySpan<uint> groups, Span<uint> room, out ReadOnlySpan<uint> translated)
    {
        translated = groups;
        if (groups.IsEmpty || _options.GroupIds.IsIdentity)
        {
            return true;
        }

        for (int i = 0; i < groups.Length; i++)
        {
            if (!_options.GroupIds.TryToHost(groups[i], out room[i]))
            {
                return false;
            }
        }

        translated = room[..groups.Length];
        return true;
    }

    // Whether a caller may make device nodes. By the host id, so that squashed ids take root's powers away; the thread has
    // the capability in any case. A whiteout (character device 0:0) is for everybody, as in mknod(2).
    private bool MayMakeDevice(uint type, uint device, RequestContext context) =>
        (type == FileMode.CharacterDevice && device == 0) ||
        (_options.UserIds.TryToHost(context.UserId, out uint user) && user == 0);

    // Of requests that change a file's content and carry no flag that says whether setuid goes (FALLOCATE,
    // COPY_FILE_RANGE): if the guest leaves that to the host, it goes whoever asks. Guests since 6.12 do not say who does
    // (FUSE_ALLOW_IDMAP), and root may lack CAP_FSETID: somebody's code must not come under another's setuid bit.
    private bool KeepsSetgid() => !_killPriv;

    // Of an open that truncates. A guest that clears setuid bits by itself forgets to when O_TRUNC is part of OPEN (Linux up
    // to 7.3, fuse_do_setattr with ATTR_OPEN), so for its users the host does. Where the guest does not say who asks the bits
    // stay, and its kernel takes them with the first byte that is written.
    private bool KeepsSetgid(FuseOpenInFlags flags, RequestContext context) => _killPriv
        ? (flags & FuseOpenInFlags.KillSuidGid) == 0
        : context.UserId is 0 or RequestContext.InvalidId;

    // Capabilities of a file end when its content or owner changes, whoever does it, and set-id bits with its content unless
    // KeepSetgid said otherwise. The host's kernel sees to both, but not where the map keeps capabilities under a name that it does
    // not know, and where a server elsewhere judges by our ids, or nobody does.
    private Errno ClearPrivileges(Node* node, int descriptor, in DescriptorName name)
    {
        if (!node->IsRegular)
        {
            return Errno.Success;
        }

        Errno error = _mounts[node->Mount].IsNetwork ? ClearSetIdBits(WorkerThread.Current, descriptor, name) : Errno.Success;
        return error == Errno.Success && _options.XattrMap is { RemappedCapability: { } capability }
            ? ClearCapability(name, capability)
            : error;
    }

    private Errno ClearPrivileges(OpenFile* file)
    {
        bool isNetwork = (file->Flags & OpenFileFlags.Network) != 0;
        byte[]? capability = _options.XattrMap?.RemappedCapability;
        if (!isNetwork && capability is null)
        {
            return Errno.Success;
        }

        WorkerThread thread = WorkerThread.Current;
        var name = new DescriptorName(file->Descriptor);
        Errno error = isNetwork ? ClearSetIdBits(thread, file->Descriptor, name) : Errno.Success;
        return error == Errno.Success && capability is not null ? ClearCapability(name, capability) : error;
    }

    private Errno ClearSetIdBits(WorkerThread thread, int descriptor, in DescriptorName name)
    {
        if (thread.KeepsSetgid)
        {
            return Errno.Success;
        }

        Errno error = Files.Statx(descriptor, StatxMask.Type | StatxMask.Mode, out StatxBuffer status).Error;
        const uint setgid = FileMode.SetGroupId | FileMode.GroupExecute;
        uint cleared = (status.Mode & FileMode.SetUserId) | ((status.Mode & setgid) == setgid ? FileMode.SetGroupId : 0u);
        return error != Errno.Success || cleared == 0
            ? error
            : ChangeMode(descriptor, name, status.Mode & FileMode.PermissionMask & ~cleared);
    }

    private static Errno ClearCapability(in DescriptorName name, byte[] capability)
    {
        Errno error = Xattrs.Removexattr(name, capability).Error;
        // There is none; or it is of a kind that the daemon may not touch, and so cannot hand out either.
        return error is Errno.ENODATA or Errno.EOPNOTSUPP or Errno.EPERM ? Errno.Success : error;
    }
}
