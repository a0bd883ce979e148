using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>Names in directories: making, removing, moving and linking.</content>
public sealed partial class FuseSession
{
    // S_IFMT and the types mknod(2) makes.
    private const uint TypeMask = 0xf000;
    private const uint FifoType = 0x1000;
    private const uint CharacterType = 0x2000;
    private const uint DirectoryType = 0x4000;
    private const uint BlockType = 0x6000;
    private const uint RegularType = 0x8000;
    private const uint SocketType = 0xc000;

    private const uint UmaskBits = 0x1ff;

    private const RenameFlags KnownRenameFlags =
        RenameFlags.NoReplace | RenameFlags.Exchange | RenameFlags.Whiteout;

    private ValueTask<int> Symlink(FuseRequest request)
    {
        if (!request.TryReadName(out FileName name) || !TryReadTarget(request, out ReadOnlyMemory<byte> target)
            || !request.TryReadExtensions() || !request.HasRoomFor<NodeEntry>())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.SymlinkAsync(request.Header.NodeId, name, target, request.Context));
    }

    // The errors of symlink(2), which an honest guest's user can cause too.
    private static bool TryReadTarget(FuseRequest request, out ReadOnlyMemory<byte> target)
    {
        if (!request.TryReadTerminated(out target))
        {
            return false;
        }

        int length = target.Length - 1;
        if (length == 0)
        {
            return request.Refuse(Errno.ENOENT, FuseViolation.None);
        }

        return length <= MaxTarget || request.Refuse(Errno.ENAMETOOLONG, FuseViolation.None);
    }

    private ValueTask<int> Mknod(FuseRequest request)
    {
        if (!request.TryRead(out FuseMknodIn arguments) || !request.TryReadName(out FileName name)
            || !request.TryReadExtensions() || !IsNodeType(request, ref arguments.Mode)
            || !request.HasRoomFor<NodeEntry>())
        {
            return Refuse(request);
        }

        arguments.Umask &= UmaskBits;
        return Finish(request, _fileSystem.MknodAsync(request.Header.NodeId, name, arguments, request.Context));
    }

    // As mknod(2) has it: no type means a regular file, a directory is EPERM, any other type EINVAL.
    private static bool IsNodeType(FuseRequest request, ref uint mode)
    {
        uint type = mode & TypeMask;
        mode &= TypeMask | PermissionBits;
        switch (type)
        {
            case 0:
                mode |= RegularType;
                return true;
            case RegularType or FifoType or SocketType or CharacterType or BlockType:
                return true;
            default:
                return request.Require(false, type == DirectoryType ? Errno.EPERM : Errno.EINVAL);
        }
    }

    private ValueTask<int> Mkdir(FuseRequest request)
    {
        if (!request.TryRead(out FuseMkdirIn arguments) || !request.TryReadName(out FileName name)
            || !request.TryReadExtensions() || !request.HasRoomFor<NodeEntry>())
        {
            return Refuse(request);
        }

        arguments.Mode &= PermissionBits;
        arguments.Umask &= UmaskBits;
        return Finish(request, _fileSystem.MkdirAsync(request.Header.NodeId, name, arguments, request.Context));
    }

    private ValueTask<int> Unlink(FuseRequest request)
    {
        if (!request.TryReadName(out FileName name) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.UnlinkAsync(request.Header.NodeId, name, request.Context));
    }

    private ValueTask<int> Rmdir(FuseRequest request)
    {
        if (!request.TryReadName(out FileName name) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.RmdirAsync(request.Header.NodeId, name, request.Context));
    }

    private ValueTask<int> Rename(FuseRequest request)
    {
        if (!request.TryRead(out FuseRenameIn arguments))
        {
            return Refuse(request);
        }

        return Rename(request, new FuseRename2In { NewParent = arguments.NewParent });
    }

    private ValueTask<int> Rename2(FuseRequest request)
    {
        if (!request.TryRead(out FuseRename2In arguments) || !request.Require(IsValid(arguments.Flags)))
        {
            return Refuse(request);
        }

        return Rename(request, arguments);
    }

    private ValueTask<int> Rename(FuseRequest request, FuseRename2In arguments)
    {
        if (!request.TryReadName(out FileName name) || !request.TryReadName(out FileName newName) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return Finish(
            request, _fileSystem.RenameAsync(request.Header.NodeId, name, arguments, newName, request.Context));
    }

    // renameat2(2): an exchange goes with nothing else.
    private static bool IsValid(RenameFlags flags) =>
        (flags & ~KnownRenameFlags) == 0 && ((flags & RenameFlags.Exchange) == 0 || flags == RenameFlags.Exchange);

    private ValueTask<int> Link(FuseRequest request)
    {
        if (!request.TryRead(out FuseLinkIn arguments) || !request.TryReadName(out FileName name)
            || !request.IsAtEnd() || !request.HasRoomFor<NodeEntry>())
        {
            return Refuse(request);
        }

        return Finish(
            request, _fileSystem.LinkAsync(arguments.OldNode, request.Header.NodeId, name, request.Context));
    }

    private ValueTask<int> Create(FuseRequest request)
    {
        if (!request.TryRead(out FuseCreateIn arguments) || !request.TryReadName(out FileName name)
            || !request.TryReadExtensions() || !request.HasRoomFor<FuseCreateOut>())
        {
            return Refuse(request);
        }

        Clean(request, ref arguments);
        return Finish(request, _fileSystem.CreateAsync(request.Header.NodeId, name, arguments, request.Context));
    }

    private ValueTask<int> Tmpfile(FuseRequest request)
    {
        // The name stands for nothing: Linux sends "/".
        if (!request.TryRead(out FuseCreateIn arguments) || !request.TryReadTerminated(out _)
            || !request.TryReadExtensions() || !request.HasRoomFor<FuseCreateOut>())
        {
            return Refuse(request);
        }

        Clean(request, ref arguments);
        return Finish(request, _fileSystem.TmpfileAsync(request.Header.NodeId, arguments, request.Context));
    }

    // Only regular files are made this way, whatever the type says.
    private static void Clean(FuseRequest request, ref FuseCreateIn arguments)
    {
        arguments.Mode = (arguments.Mode & PermissionBits) | RegularType;
        arguments.Umask &= UmaskBits;
        arguments.OpenFlags &= GrantedOpenFlags(request);
    }
}
