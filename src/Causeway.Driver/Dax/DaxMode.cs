namespace Causeway.Driver;

/// <summary>Which files a client reads and writes as memory, when the device has a window for that (DAX).</summary>
public enum DaxMode
{
    /// <summary>Those of which the device says so (FUSE_ATTR_DAX), as Linux guests do without an option. The default.</summary>
    Inode,

    /// <summary>All of them (<c>dax=always</c>). What cannot be mapped is read and written by requests.</summary>
    Always,

    /// <summary>None (<c>dax=never</c>).</summary>
    Never,
}

/// <summary>What of the window a client uses right now.</summary>
/// <param name="WindowBytes">Its size; zero when there is none, or it is not used.</param>
/// <param name="CachedRanges">Ranges of 2 MiB in which parts of files are kept for reading and writing.</param>
/// <param name="MappedRanges">Ranges that belong to a <see cref="VirtioFsMapping"/>.</param>
/// <param name="Faults">How often something was touched that was not there (any more).</param>
public readonly record struct DaxUsage(long WindowBytes, int CachedRanges, int MappedRanges, long Faults);
