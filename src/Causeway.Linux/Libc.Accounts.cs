using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int getgrnam_r(byte* name, GroupEntry* grp, byte* buf, nuint buflen, GroupEntry** result);

    /// <summary><c>struct group</c> of getgrnam_r(3).</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct GroupEntry
    {
        /// <summary><c>gr_name</c></summary>
        public byte* Name;

        /// <summary><c>gr_passwd</c></summary>
        public byte* Password;

        /// <summary><c>gr_gid</c></summary>
        public uint GroupId;

        /// <summary><c>gr_mem</c></summary>
        public byte** Members;
    }
}
