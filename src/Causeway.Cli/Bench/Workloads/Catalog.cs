namespace Causeway.Cli.Bench.Workloads;

/// <summary>All operations that can be measured.</summary>
internal static class Catalog
{
    private const int Small = 4 << 10;
    private const int Large = 1 << 20;
    private const uint Root = 0;
    private const uint User = 1000;

    /// <summary>The operations, in the order of results.</summary>
    public static IReadOnlyList<Operation> Operations { get; } =
    [
        new("noop", OperationKind.Metadata, "a request that no daemon implements (BMAP): the transport alone", () => new Nothing()),
        new("getattr", OperationKind.Metadata, "GETATTR over 1,000 files", () => new GetAttributes()),
        new("lookup-known", OperationKind.Metadata, "LOOKUP of 1,000 names that the daemon knows", () => new LookUpKnown()),
        new("lookup-new", OperationKind.Metadata, "LOOKUP of a name that it does not know, and FORGET", () => new LookUpNew()),
        new("lookup-missing", OperationKind.Metadata, "LOOKUP of a name that is not there", () => new LookUpMissing()),
        new("open", OperationKind.Metadata, "OPEN and RELEASE over 1,000 files", () => new OpenRelease()),
        new("create", OperationKind.Metadata, "CREATE, WRITE 4 KiB, RELEASE, UNLINK, FORGET as root", () => new CreateCycle(Root)),
        new("create-user", OperationKind.Metadata, "the same as user 1000", () => new CreateCycle(User)),
        new("setattr", OperationKind.Metadata, "SETATTR of the permissions over 1,000 files", () => new SetAttributes()),
        new("rename", OperationKind.Metadata, "RENAME to a name that is free", () => new Renames()),
        new("symlink", OperationKind.Metadata, "SYMLINK, READLINK, UNLINK, FORGET", () => new SymbolicLinks()),
        new("xattr", OperationKind.Metadata, "SETXATTR and GETXATTR of 64 bytes", () => new ExtendedAttributes()),
        new("readdir", OperationKind.Metadata, "OPENDIR, READDIR of 1,000 names, RELEASEDIR", () => new Listings(isPlus: false, isCold: false)),
        new("readdirplus", OperationKind.Metadata, "the same by READDIRPLUS, all names known", () => new Listings(isPlus: true, isCold: false)),
        new("readdirplus-cold", OperationKind.Metadata, "the same, no name known; then FORGET of all", () => new Listings(isPlus: true, isCold: true)),
        new("read-4k", OperationKind.Data, "READ of 4 KiB anywhere in 64 MiB", () => new Reads(Small, isRandom: true)),
        new("write-4k", OperationKind.Data, "WRITE of 4 KiB anywhere in 64 MiB", () => new Writes(Small, isRandom: true)),
        new("read-1m", OperationKind.Data, "READ of 1 MiB, one after the other", () => new Reads(Large, isRandom: false)),
        new("write-1m", OperationKind.Data, "WRITE of 1 MiB, one after the other", () => new Writes(Large, isRandom: false)),
        new("git-status", OperationKind.Mix, "what 'git status' asks for, per file of 10,000 in 100 directories", () => new GitStatus()),
        new("npm-install", OperationKind.Mix, "packages of 20 files made and removed among 10,000, per file", () => new NpmInstall()),
        new("read-cold", OperationKind.Disk, "READ of 4 KiB anywhere in 1 GiB that is not in memory; only when named", () => new ColdReads(Small, isDirect: false)),
        new("read-direct", OperationKind.Disk, "the same by O_DIRECT, for daemons started with --allow-direct-io; only when named", () => new ColdReads(Small, isDirect: true)),
    ];

    /// <summary>The operations of a list of names; kinds (metadata, data, mix, disk) stand for all of theirs, and no names for all but disk.</summary>
    public static IReadOnlyList<Operation> Find(IReadOnlyCollection<string> names)
    {
        foreach (string name in names)
        {
            if (!Operations.Any(operation => IsMeant(operation, name)))
            {
                throw new UsageException(
                    $"there is no operation '{name}'; there are {string.Join(", ", Operations.Select(operation => operation.Name))}, "
                    + "and metadata, data, mix and disk for all of a kind");
            }
        }

        return [.. Operations.Where(operation => names.Count == 0 ? operation.Kind != OperationKind.Disk : names.Any(name => IsMeant(operation, name)))];
    }

    private static bool IsMeant(Operation operation, string name) =>
        operation.Name == name || string.Equals(operation.Kind.ToString(), name, StringComparison.OrdinalIgnoreCase);
}
