using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>What every request starts with. <c>fuse_in_header</c>, 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseInHeader
{
    /// <summary>Bytes of the whole request, this header included.</summary>
    public uint Length;

    /// <summary>What is asked for.</summary>
    public FuseOpcode Opcode;

    /// <summary>The number the reply has to repeat.</summary>
    public RequestId Unique;

    /// <summary>The object or directory the request acts on.</summary>
    public NodeId NodeId;

    /// <summary>The caller's user id; all ones when the guest does not say (idmapped mounts).</summary>
    public uint UserId;

    /// <summary>The caller's group id; all ones when the guest does not say.</summary>
    public uint GroupId;

    /// <summary>The caller's process id, informational only.</summary>
    public uint ProcessId;

    /// <summary>Size of the extension block at the end, in units of 8 bytes (since 7.38).</summary>
    public ushort ExtensionLength;

    /// <summary>Reserved; zero.</summary>
    public ushort Padding;
}

/// <summary>What every reply starts with. <c>fuse_out_header</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseOutHeader
{
    /// <summary>Bytes of the whole reply, this header included.</summary>
    public uint Length;

    /// <summary>Zero, or a negated errno.</summary>
    public int Error;

    /// <summary>The number of the request.</summary>
    public RequestId Unique;
}
