using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>
/// A node as LOOKUP and the creating requests return it. <c>fuse_entry_out</c>, 128 bytes: the structure is the wire
/// format itself, so that nothing is converted on the way out.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public struct NodeEntry
{
    /// <summary>The node. Every reply that carries it adds one to the node's lookup count.</summary>
    public NodeId NodeId;

    /// <summary>Tells apart two nodes that had the same number at different times.</summary>
    public ulong Generation;

    /// <summary>How long the name may be remembered, seconds.</summary>
    public ulong EntryLifetimeSeconds;

    /// <summary>How long the attributes may be remembered, seconds.</summary>
    public ulong AttributeLifetimeSeconds;

    /// <summary>How long the name may be remembered, nanoseconds.</summary>
    public uint EntryLifetimeNanoseconds;

    /// <summary>How long the attributes may be remembered, nanoseconds.</summary>
    public uint AttributeLifetimeNanoseconds;

    /// <summary>The attributes.</summary>
    public FuseAttributes Attributes;

    /// <summary>A name that does not exist, which the guest may remember for a while without asking again.</summary>
    /// <param name="lifetime">How long.</param>
    public static NodeEntry Negative(TimeSpan lifetime) => new()
    {
        EntryLifetimeSeconds = (ulong)lifetime.Ticks / TimeSpan.TicksPerSecond,
        EntryLifetimeNanoseconds = (uint)(lifetime.Ticks % TimeSpan.TicksPerSecond) * 100,
    };
}
