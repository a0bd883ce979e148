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
        bool isAllowed =
            Negotiate(negotiation, _options.PosixAcl, AclFeatures, "POSIX access control lists", out _posixAcl) &
            Negotiate(
                negotiation, _options.SecurityLabel, FuseFeatures.SecurityContext, "security labels for new files", out _) &
            Negotiate(
                negotiation,
                _options.KillPrivV2 ? NegotiationMode.Auto : NegotiationMode.Never,
                FuseFeatures.HandleKillPrivV2,
                "clearing of setuid bits by the host (killpriv-v2)",
                out _killPriv);
        return isAllowed;
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
    // COPY_FILE_RANGE): if the guest leaves that to the host, it goes unless guest root asks. Guests since 6.12 do not say who
    // asks (FUSE_ALLOW_IDMAP), so there it goes always: somebody's code must not come under another's setuid bit.
    private bool KeepsSetgid(RequestContext context) => !_killPriv || context.UserId == 0;

    // Of an open that truncates. A guest that clears setuid bits by itself forgets to when O_TRUNC is part of OPEN (Linux up
    // to 7.3, fuse_do_setattr with ATTR_OPEN), so for its users the host does. Where the guest does not say who asks the bits
    // stay, and its kernel takes them with the first byte that is written.
    private bool KeepsSetgid(FuseOpenInFlags flags, RequestContext context) => _killPriv
        ? (flags & FuseOpenInFlags.KillSuidGid) == 0
        : context.UserId is 0 or RequestContext.InvalidId;

    // Capabilities of a file end when its content or owner changes, whoever does it. The host's kernel sees to that unless
    // the map keeps them under a name it does not know.
    private Errno ClearRemappedCapability(Node* node, in DescriptorName name)
    {
        if (_options.XattrMap is not { RemappedCapability: { } capability } || !node->IsRegular)
        {
            return Errno.Success;
        }

        return ClearCapability(name, capability);
    }

    private Errno ClearRemappedCapability(OpenFile* file)
    {
        if (_options.XattrMap is not { RemappedCapability: { } capability })
        {
            return Errno.Success;
        }

        _ = WorkerThread.Current;
        return ClearCapability(new DescriptorName(file->Descriptor), capability);
    }

    private static Errno ClearCapability(in DescriptorName name, byte[] capability)
    {
        Errno error = Xattrs.Removexattr(name, capability).Error;
        // There is none; or it is of a kind that the daemon may not touch, and so cannot hand out either.
        return error is Errno.ENODATA or Errno.EOPNOTSUPP or Errno.EPERM ? Errno.Success : error;
    }
}
