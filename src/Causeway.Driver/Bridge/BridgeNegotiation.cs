using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// The two negotiations of a bridge: the kernel offers features to it, it offers to the device what it can relay, and
/// grants to the kernel what the device granted. INIT itself is never forwarded.
/// </summary>
internal static class BridgeNegotiation
{
    /// <summary>The newest minor version whose messages the bridge knows.</summary>
    public const uint NewestMinor = 46;

    /// <summary>The oldest that a virtio-fs device may speak; below it structures have other sizes.</summary>
    public const uint OldestMinor = 31;

    private const uint Major = 7;
    private const uint PageSize = 4096;
    private const uint MaxPages = FuseSession.MaxTransfer / PageSize;

    /// <summary>
    /// What means the same on both sides. Missing: what concerns /dev/fuse alone (SPLICE_*, ABORT_ERROR, HAS_EXPIRE_ONLY,
    /// HAS_RESEND, PASSTHROUGH, OVER_IO_URING, which would have the kernel wait for rings), what concerns virtio-fs alone
    /// (MAP_ALIGNMENT, HAS_INODE_DAX, which the kernel offers without having a window, and SUBMOUNTS, which it does not
    /// know here), and REQUEST_TIMEOUT: the bridge watches the daemon itself.
    /// </summary>
    private const FuseFeatures Relayed =
        FuseFeatures.AsyncRead | FuseFeatures.PosixLocks | FuseFeatures.AtomicOTrunc | FuseFeatures.ExportSupport
        | FuseFeatures.BigWrites | FuseFeatures.DontMask | FuseFeatures.FlockLocks | FuseFeatures.HasIoctlDir
        | FuseFeatures.AutoInvalData | FuseFeatures.DoReadDirPlus | FuseFeatures.ReadDirPlusAuto | FuseFeatures.AsyncDio
        | FuseFeatures.WritebackCache | FuseFeatures.NoOpenSupport | FuseFeatures.ParallelDirOps
        | FuseFeatures.HandleKillPriv | FuseFeatures.PosixAcl | FuseFeatures.MaxPages | FuseFeatures.CacheSymlinks
        | FuseFeatures.NoOpenDirSupport | FuseFeatures.ExplicitInvalData | FuseFeatures.HandleKillPrivV2
        | FuseFeatures.SetXattrExt | FuseFeatures.InitExt | FuseFeatures.SecurityContext | FuseFeatures.CreateSuppGroup
        | FuseFeatures.DirectIoAllowMmap | FuseFeatures.NoExportSupport | FuseFeatures.AllowIdmap;

    /// <summary>The INIT for the device.</summary>
    /// <param name="kernel">The kernel's INIT.</param>
    /// <param name="options">How the share is mounted.</param>
    public static FuseInitIn ToDevice(in FuseInitIn kernel, BridgeOptions options)
    {
        ulong offered = OfferedBy(kernel) & (ulong)Relayed;
        if (!options.DefaultPermissions)
        {
            // The kernel refuses to mount with it then.
            offered &= ~(ulong)FuseFeatures.AllowIdmap;
        }

        var asked = new FuseInitIn
        {
            Major = Major,
            Minor = Math.Min(kernel.Minor, NewestMinor),
            MaxReadahead = kernel.MaxReadahead,
        };
        if (options.UsesVersions)
        {
            offered |= (ulong)(FuseFeatures.VersionTable | FuseFeatures.InitExt);
            asked.VersionTableMagic = VersionTableLayout.InitMagic;
            asked.VersionTableAbi = VersionTableLayout.Abi;
        }

        asked.Flags = (uint)offered;
        asked.Flags2 = (uint)(offered >> 32);
        return asked;
    }

    /// <summary>Whether the device's answer can be worked with.</summary>
    /// <param name="asked">What the device was asked.</param>
    /// <param name="answer">Its answer.</param>
    /// <returns>What is wrong with it, or null.</returns>
    public static string? Refuse(in FuseInitIn asked, in FuseInitOut answer)
    {
        if (answer.Major != Major || answer.Minor < OldestMinor)
        {
            return $"it speaks FUSE {answer.Major}.{answer.Minor}, and {Major}.{OldestMinor} is needed at least";
        }

        ulong extra = GrantedBy(answer) & ~OfferedBy(asked);
        return extra == 0 ? null : $"it grants features that were not offered (0x{extra:x})";
    }

    /// <summary>The answer to the kernel.</summary>
    /// <param name="asked">What the device was asked.</param>
    /// <param name="answer">Its answer, which was not refused.</param>
    public static FuseInitOut ToKernel(in FuseInitIn asked, in FuseInitOut answer)
    {
        ulong granted = GrantedBy(answer) & ~(ulong)FuseFeatures.VersionTable;
        bool hasMaxPages = (granted & (ulong)FuseFeatures.MaxPages) != 0;
        return new FuseInitOut
        {
            Major = Major,
            Minor = Math.Min(answer.Minor, asked.Minor),
            MaxReadahead = Math.Min(answer.MaxReadahead, asked.MaxReadahead),
            Flags = (uint)granted,
            Flags2 = (uint)(granted >> 32),
            MaxBackground = answer.MaxBackground,
            CongestionThreshold = answer.CongestionThreshold,
            MaxWrite = Math.Clamp(answer.MaxWrite, PageSize, FuseSession.MaxTransfer),
            TimeGranularity = Math.Clamp(answer.TimeGranularity, 1, 1_000_000_000),
            MaxPages = hasMaxPages ? (ushort)Math.Clamp((uint)answer.MaxPages, 1, MaxPages) : (ushort)0,
        };
    }

    /// <summary>Whether the device has shown its version table, and its replies carry versions.</summary>
    /// <param name="answer">Its answer.</param>
    public static bool HasVersions(in FuseInitOut answer) =>
        (GrantedBy(answer) & (ulong)FuseFeatures.VersionTable) != 0
        && answer.VersionTableAnswer == VersionTableLayout.InitAnswer
        && answer.VersionTableAbi == VersionTableLayout.Abi
        && answer.VersionTableRegion == VersionTableLayout.RegionId;

    /// <summary>Whether the kernel can send requests over io_uring.</summary>
    /// <param name="kernel">The kernel's INIT.</param>
    public static bool OffersRings(in FuseInitIn kernel) => (OfferedBy(kernel) & (ulong)FuseFeatures.OverIoUring) != 0;

    /// <summary>The answer to the kernel that makes it wait for rings, and use them.</summary>
    /// <param name="granted">The answer without it.</param>
    public static FuseInitOut WithRings(FuseInitOut granted)
    {
        const ulong rings = (ulong)(FuseFeatures.OverIoUring | FuseFeatures.InitExt);
        return granted with { Flags = granted.Flags | unchecked((uint)rings), Flags2 = granted.Flags2 | (uint)(rings >> 32) };
    }

    private static ulong OfferedBy(in FuseInitIn init) => init.Flags
        | ((init.Flags & (uint)FuseFeatures.InitExt) != 0 ? (ulong)init.Flags2 << 32 : 0);

    private static ulong GrantedBy(in FuseInitOut init) => init.Flags
        | ((init.Flags & (uint)FuseFeatures.InitExt) != 0 ? (ulong)init.Flags2 << 32 : 0);
}
