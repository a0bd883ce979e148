namespace Causeway.Passthrough;

/// <summary>Where a process that has locked itself in finds what it opened or kept before.</summary>
/// <param name="Directory">The path of the shared directory.</param>
/// <param name="ProcessDescriptors">A descriptor of /proc/self/fd, for good.</param>
/// <param name="IsInInitialUserNamespace">Whether its capabilities count for the files of all users.</param>
/// <param name="HasOwnMounts">Whether no other process uses the mounts through which it reaches the share.</param>
public sealed record ShareLocation(
    string Directory, int ProcessDescriptors, bool IsInInitialUserNamespace, bool HasOwnMounts = false);
