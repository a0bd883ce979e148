using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Cli.Sandbox;

/// <summary>Which capabilities the daemon keeps: what its options need, changed by <c>--modcaps</c>.</summary>
internal static class CapabilitySelection
{
    /// <summary>What stage two needs to lock itself in, and then gives up.</summary>
    public const ulong ForEntering =
        (1UL << (int)Capability.SysAdmin) | (1UL << (int)Capability.SysChroot) | (1UL << (int)Capability.SetPcap);

    /// <summary>The capabilities as a bit set.</summary>
    /// <param name="passthrough">What is shared, and how.</param>
    /// <param name="changes">What <c>--modcaps</c> said.</param>
    /// <exception cref="StartupException">Something that the options need is taken away.</exception>
    public static ulong For(PassthroughOptions passthrough, IReadOnlyList<CapabilityChange> changes)
    {
        ulong kept = Default(passthrough).Aggregate(0UL, (set, capability) => set | Bit(capability));
        foreach (CapabilityChange change in changes)
        {
            kept = change.IsKept ? kept | Bit(change.Capability) : kept & ~Bit(change.Capability);
        }

        return passthrough.FileHandles == InodeFileHandles.Never || (kept & Bit(Capability.DacReadSearch)) != 0
            ? kept
            : throw new StartupException(
                "'--modcaps -dac_read_search' takes away what opening by file handle needs; say '--inode-file-handles=never' "
                + "as well, or leave it out");
    }

    /// <summary>Reads the list of <c>--modcaps</c>.</summary>
    /// <param name="list">For example <c>+sys_admin:-mknod</c>.</param>
    /// <exception cref="StartupException">It is no such list; virtiofsd ends with status 1 then, not 2.</exception>
    public static IReadOnlyList<CapabilityChange> Parse(string list)
    {
        var changes = new List<CapabilityChange>();
        foreach (string item in list.Split(':'))
        {
            if (item.Length < 2 || item[0] is not ('+' or '-'))
            {
                throw new StartupException(
                    $"'--modcaps' takes a list such as '+sys_admin:-mknod'; '{item}' in it has no '+' or '-' and a name");
            }

            string name = item[1..].Replace("_", string.Empty, StringComparison.Ordinal);
            if (!name.All(char.IsAsciiLetter) || !Enum.TryParse(name, ignoreCase: true, out Capability capability))
            {
                throw new StartupException(
                    $"'{item[1..]}' in '--modcaps' is not a capability; capabilities(7) lists them, written without 'CAP_'");
            }

            changes.Add(new CapabilityChange(capability, item[0] == '+'));
        }

        return changes;
    }

    private static IEnumerable<Capability> Default(PassthroughOptions passthrough)
    {
        if (passthrough.HostWatching == HostWatching.Fanotify)
        {
            // To watch a file system, and each that is mounted below the share later.
            yield return Capability.SysAdmin;
        }

        if (passthrough.TakesDelegations)
        {
            // Of files that belong to others.
            yield return Capability.Lease;
        }

        if (passthrough.ReadOnly)
        {
            // Of what virtiofsd keeps, reading needs only this, and somebody else's O_NOATIME the other.
            yield return Capability.DacReadSearch;
            if (passthrough.PreserveNoatime)
            {
                yield return Capability.Fowner;
            }

            yield break;
        }

        if (passthrough.FileHandles != InodeFileHandles.Never)
        {
            yield return Capability.DacReadSearch;
        }

        yield return Capability.Chown;
        yield return Capability.DacOverride;
        yield return Capability.Fowner;
        yield return Capability.Fsetid;
        yield return Capability.SetGid;
        yield return Capability.SetUid;
        yield return Capability.Mknod;
        if (passthrough.HasXattrs)
        {
            // For security.capability.
            yield return Capability.SetFcap;
        }
    }

    private static ulong Bit(Capability capability) => 1UL << (int)capability;
}
