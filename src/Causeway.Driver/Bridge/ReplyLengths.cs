using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// How long a successful reply has to be. The kernel looks as well, but what it then tells programs depends on how the reply
/// came: EIO through /dev/fuse, EINVAL over io_uring.
/// </summary>
internal static class ReplyLengths
{
    /// <summary>Whether a reply can have a length.</summary>
    /// <param name="opcode">What was asked.</param>
    /// <param name="length">Bytes after the header.</param>
    /// <returns>True also for what may be of any length.</returns>
    public static bool IsPossible(FuseOpcode opcode, int length) => opcode switch
    {
        FuseOpcode.Lookup or FuseOpcode.Mknod or FuseOpcode.Mkdir or FuseOpcode.Symlink or FuseOpcode.Link =>
            length == Unsafe.SizeOf<NodeEntry>(),
        FuseOpcode.Create or FuseOpcode.Tmpfile => length == Unsafe.SizeOf<FuseCreateOut>(),
        FuseOpcode.GetAttr or FuseOpcode.SetAttr => length == Unsafe.SizeOf<FuseAttrOut>(),
        FuseOpcode.Statx => length == Unsafe.SizeOf<FuseStatxOut>(),
        FuseOpcode.Open or FuseOpcode.OpenDir => length == Unsafe.SizeOf<FuseOpenOut>(),
        FuseOpcode.Write or FuseOpcode.CopyFileRange => length == Unsafe.SizeOf<FuseWriteOut>(),
        FuseOpcode.Statfs => length == Unsafe.SizeOf<FuseStatfsOut>(),
        FuseOpcode.Lseek => length == Unsafe.SizeOf<FuseLseekOut>(),
        FuseOpcode.GetLk => length == Unsafe.SizeOf<FuseLkOut>(),
        FuseOpcode.Unlink or FuseOpcode.Rmdir or FuseOpcode.Rename or FuseOpcode.Rename2 or FuseOpcode.Release
            or FuseOpcode.ReleaseDir or FuseOpcode.Flush or FuseOpcode.Fsync or FuseOpcode.FsyncDir or FuseOpcode.SetXattr
            or FuseOpcode.RemoveXattr or FuseOpcode.SetLk or FuseOpcode.SetLkWait or FuseOpcode.Access
            or FuseOpcode.Fallocate => length == 0,
        _ => true,
    };
}
