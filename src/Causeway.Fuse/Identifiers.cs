namespace Causeway.Fuse;

/// <summary>The number a session gives to a node (<c>nodeid</c>). It is not a host inode number.</summary>
/// <param name="Value">The number; 1 is the root, 0 is no node.</param>
public readonly record struct NodeId(ulong Value)
{
    /// <summary>The root of the share (<c>FUSE_ROOT_ID</c>).</summary>
    public static NodeId Root => new(1);

    /// <summary>No node; in a LOOKUP reply, a name that does not exist and may be remembered as such.</summary>
    public static NodeId None => default;
}

/// <summary>The number a session gives to an open file or directory (<c>fh</c>).</summary>
/// <param name="Value">The number.</param>
public readonly record struct HandleId(ulong Value);

/// <summary>The number a guest gives to a request (<c>unique</c>).</summary>
/// <param name="Value">The number.</param>
public readonly record struct RequestId(ulong Value);
