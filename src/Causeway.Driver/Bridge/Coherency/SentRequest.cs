using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>What is remembered of a request until its reply is learned from.</summary>
/// <param name="Opcode">What it asks.</param>
/// <param name="Node">Of what.</param>
/// <param name="Epoch">The table's epoch before it was sent.</param>
internal readonly record struct SentRequest(FuseOpcode Opcode, NodeId Node, ulong Epoch)
{
    /// <summary>
    /// Whether it changes the node it names, or names in it: what the log of the table says of these meanwhile may be this
    /// request's doing, which the kernel knows of.
    /// </summary>
    public bool IsOwnChange => Opcode is FuseOpcode.Write or FuseOpcode.SetAttr or FuseOpcode.Fallocate
        or FuseOpcode.SetXattr or FuseOpcode.RemoveXattr or FuseOpcode.Create or FuseOpcode.Mkdir or FuseOpcode.Mknod
        or FuseOpcode.Symlink or FuseOpcode.Link or FuseOpcode.Unlink or FuseOpcode.Rmdir or FuseOpcode.Rename
        or FuseOpcode.Rename2;

    /// <summary>Where the name begins in the arguments of an opcode that has one.</summary>
    public int NameOffset => Opcode switch
    {
        FuseOpcode.Mkdir or FuseOpcode.Link or FuseOpcode.Rename => 8,
        FuseOpcode.Mknod or FuseOpcode.Create or FuseOpcode.Rename2 => 16,
        _ => 0,
    };
}
