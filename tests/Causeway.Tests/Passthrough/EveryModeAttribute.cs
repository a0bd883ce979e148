using System.Reflection;
using Causeway.Passthrough;
using Xunit.Sdk;
using Xunit.v3;

namespace Causeway.Tests.Passthrough;

/// <summary>Runs a test with file handles and with descriptors only, on a disk file system and on tmpfs.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EveryModeAttribute : DataAttribute
{
    public static readonly string[] Places = ["/var/tmp", "/dev/shm"];

    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(
        MethodInfo testMethod, DisposalTracker disposalTracker) => new(
    [
        .. from handles in new[] { InodeFileHandles.Prefer, InodeFileHandles.Never }
           from place in Places
           select new TheoryDataRow(handles, place),
    ]);

    public override bool SupportsDiscoveryEnumeration() => true;
}
