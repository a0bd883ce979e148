namespace Causeway.Passthrough;

/// <summary>What an object is, as far as delegations go.</summary>
internal enum DelegatedKind
{
    /// <summary>What has none: devices, sockets, named pipes.</summary>
    Other,

    /// <summary>A regular file.</summary>
    File,

    /// <summary>A directory.</summary>
    Directory,

    /// <summary>A symbolic link.</summary>
    Link,
}

/// <summary>What is held of an object, and which of its words are not in flight for want of a delegation.</summary>
[Flags]
internal enum DelegatedState
{
    None = 0,

    /// <summary>Its delegation; of a link, its descriptor.</summary>
    Held = 1,

    /// <summary>A thread is taking the delegation.</summary>
    Taking = 2,

    /// <summary>And it was asked for meanwhile.</summary>
    AskedFor = 4,

    /// <summary>META may be told.</summary>
    Metadata = 8,

    /// <summary>CONTENT may be told.</summary>
    Content = 16,
}

/// <summary>An object that has a delegation, or has had one. Under the lock of the table, but for looks at state and generation.</summary>
internal struct DelegatedObject
{
    public DelegatedState State;
    public uint Word;

    /// <summary>The word of all names in it, of a directory.</summary>
    public uint NameWord;

    public int Descriptor;

    /// <summary>How often it was taken.</summary>
    public uint Generation;

    /// <summary>When it was taken.</summary>
    public int Since;

    /// <summary>When to try again, after so many failures.</summary>
    public int RetryAt;
    public int Failures;

    /// <summary>How often it is still to be given up for those who may wait, and since when they may.</summary>
    public int Renewals;
    public int RenewedFor;

    /// <summary>Its inode number.</summary>
    public ulong Inode;

    /// <summary>The directory that vouches for this one, and the others that it does; places.</summary>
    public int Parent;
    public int FirstChild;
    public int NextSibling;
    public int PreviousSibling;
}
