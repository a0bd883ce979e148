using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The arguments of SETUPMAPPING. <c>fuse_setupmapping_in</c>, 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseSetupMappingIn
{
    /// <summary>A handle of the file; all ones, which is what Linux sends, for none.</summary>
    public HandleId Handle;

    /// <summary>Where the mapping starts in the file, in bytes.</summary>
    public ulong FileOffset;

    /// <summary>Its length in bytes. Linux always asks for 2 MiB, also behind the end of the file.</summary>
    public ulong Length;

    /// <summary>FUSE_SETUPMAPPING_FLAG_*.</summary>
    public FuseMappingFlags Flags;

    /// <summary>Where it starts in the window, in bytes.</summary>
    public ulong WindowOffset;
}

/// <summary>FUSE_SETUPMAPPING_FLAG_*.</summary>
[Flags]
public enum FuseMappingFlags : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_SETUPMAPPING_FLAG_WRITE.</summary>
    Write = 0x1,

    /// <summary>FUSE_SETUPMAPPING_FLAG_READ.</summary>
    Read = 0x2,
}

/// <summary>The arguments of REMOVEMAPPING, followed by that many ranges. <c>fuse_removemapping_in</c>, 4 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRemoveMappingIn
{
    /// <summary>How many ranges follow.</summary>
    public uint Count;
}

/// <summary>One range of REMOVEMAPPING. <c>fuse_removemapping_one</c>, 16 bytes, at any address.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRemoveMappingOne
{
    /// <summary>Where it starts in the window, in bytes.</summary>
    public ulong WindowOffset;

    /// <summary>Its length in bytes; all ones for everything that is mapped.</summary>
    public ulong Length;
}
